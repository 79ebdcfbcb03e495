"""Asks the name servers of /etc/resolv.conf, with dnspython. Every answer may be an attacker's."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from sipfw.resolver.records import Naptr, RecordType, Reply, Srv, Unanswered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.ruleset.addresses import IpAddress

# Of one question: two tries of the first server within it, see resolv.conf(5) for libc's 5 s.
# A name takes three steps at most, one after the other.
_SECONDS = 3.0
_TRY_SECONDS = 1.4
# Each has a socket; 1,024 descriptors are what a process may have.
_AT_ONCE = 128
_LONGEST_REASON = 80


class NameServers:
    """The host's name servers, or the given ones. To be used within one event loop."""

    def __init__(self, servers: Sequence[str] = (), port: int = 53) -> None:
        # 0.1 s that only a policy with host names pays.
        import dns.asyncresolver  # noqa: PLC0415 - see above
        import dns.resolver  # noqa: PLC0415 - see above

        try:
            found = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            found = dns.asyncresolver.Resolver(configure=False)
            # What libc does without the file.
            servers = ("127.0.0.1",)
        if servers:
            found.nameservers = list(servers)
            found.port = port
        found.timeout, found.lifetime = _TRY_SECONDS, _SECONDS
        found.cache = None
        self._resolver = found
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, name: str, kind: RecordType) -> Reply:
        """Return the records of a fully qualified name. Raises Unanswered."""
        import dns.exception  # noqa: PLC0415 - see above
        import dns.name  # noqa: PLC0415 - see above
        import dns.resolver  # noqa: PLC0415 - see above

        try:
            # Absolute: a search list must not turn one name into another.
            wanted = dns.name.from_text(name, dns.name.root)
            async with self._places:
                answer = await self._resolver.resolve(
                    wanted, kind.value, raise_on_no_answer=False, search=False
                )
            if answer.rrset is None:
                return Reply()
            records = tuple(_record(kind, item) for item in answer.rrset)
            return Reply(records, answer.chaining_result.minimum_ttl)
        except dns.resolver.NXDOMAIN:
            return Reply(exists=False)
        except dns.exception.Timeout as error:
            raise Unanswered("no answer in time") from error
        except dns.resolver.NoNameservers as error:
            raise Unanswered(_reason(error)) from error
        except (dns.exception.DNSException, OSError, UnicodeError, ValueError) as error:
            raise Unanswered(f"the answer cannot be read: {type(error).__name__}") from error


def _record(kind: RecordType, item: Any) -> IpAddress | Srv | Naptr:
    """Take over a record of dnspython; its texts have strange bytes as backslash and digits."""
    match kind:
        case RecordType.SRV:
            return Srv(item.target.to_text(), int(item.port))
        case RecordType.NAPTR:
            flags, service = (
                part.decode("ascii", "replace") for part in (item.flags, item.service)
            )
            return Naptr(flags, service, item.replacement.to_text(omit_final_dot=True).lower())
        case _:
            return ip_address(item.address)


def _reason(error: Any) -> str:
    """Say what the last name server did."""
    tried = error.kwargs.get("errors") or ()
    why = str(tried[-1][3]) if tried else "none is known"
    plain = "".join(c for c in why if c.isprintable())[:_LONGEST_REASON]
    return f"no name server can be asked: {plain}"
