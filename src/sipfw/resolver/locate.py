"""The steps of RFC 3263 from a name to addresses: NAPTR, SRV, targets, A and AAAA.

A trunk may send from every address that it listens on, so all targets count, whatever their
priority or transport. Their ports do not: what a trunk sends from is another socket's business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sipfw.policy.quantities import shown
from sipfw.policy.types import is_host_name
from sipfw.resolver.records import FoundAddress, Located, Naptr, RecordType, Reply, Srv, Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.resolver.records import Ask, DnsQuestion
    from sipfw.ruleset.addresses import IpAddress

# RFC 3263, 4.1 and RFC 7118, 5.1: SIP over UDP, TCP, TLS, WebSocket.
_SERVICES = frozenset({"SIP+D2U", "SIP+D2T", "SIPS+D2T", "SIP+D2W", "SIPS+D2W"})
_SRV_NAMES = ("_sip._udp", "_sip._tcp", "_sips._tcp")

# A carrier has a handful; each costs two questions.
MOST_TARGETS = 32

_NO_SUCH_NAME = "no such name"
_NO_ADDRESS = "the name has no address"


async def locate(
    question: DnsQuestion, ask: Ask, hosts: Mapping[str, Sequence[IpAddress]]
) -> Located:
    """Return the addresses of a name. Raises Unanswered where there are none."""
    if own := hosts.get(question.name):
        return Located(tuple(FoundAddress(address, "/etc/hosts", local=True) for address in own))
    search = _Search(ask, hosts)
    if not question.sip:
        return search.result(await search.host(question.name))
    if question.name.startswith("_"):
        return search.result(await search.targets(await search.srv([question.name])))
    # All at once: a name server that lets one type of record hang must not cost the others.
    host, naptr, replies = await asyncio.gather(
        search.host(question.name),
        search.reply(question.name, RecordType.NAPTR),
        search.srv([f"{prefix}.{question.name}" for prefix in _SRV_NAMES]),
    )
    replies |= await search.srv([name for name in _replacements(naptr) if name not in replies])
    if not any(reply.records for reply in replies.values()):
        return search.result(host)
    # What the name itself points to is a web server as often as not, and SIP never asks for it.
    search.forget(question.name)
    return search.result(await search.targets(replies), naptr, *replies.values())


def _replacements(naptr: Reply) -> list[str]:
    """Return the SRV names that NAPTR leads to, each once; a carrier has one per transport."""
    found = {
        record.replacement: None
        for record in naptr.records
        if isinstance(record, Naptr)
        and record.flags.lower() == "s"
        and record.service.upper() in _SERVICES
        and is_host_name(record.replacement)
    }
    return list(found)[: len(_SERVICES)]


def _key(kind: RecordType, name: str) -> str:
    return f"{kind.value} of {name}"


def _host_keys(name: str) -> tuple[str, str]:
    return _key(RecordType.A, name), _key(RecordType.AAAA, name)


class _Search:
    """One name's questions, what came of them, and what is worth saying."""

    def __init__(self, ask: Ask, hosts: Mapping[str, Sequence[IpAddress]]) -> None:
        self._ask = ask
        self._hosts = hosts
        self._unanswered: dict[str, str] = {}
        self._remarks: dict[str, None] = {}
        self._ttls: dict[str, int] = {}
        self._missing: dict[str, str] = {}

    async def reply(self, name: str, kind: RecordType) -> Reply:
        """Ask once; a question without an answer is noted and has no records."""
        try:
            return await self._ask(name, kind)
        except Unanswered as error:
            self._unanswered[_key(kind, name)] = str(error)
            return Reply()

    async def host(self, name: str, via: str = "") -> list[FoundAddress]:
        """Return the addresses of one host."""
        if own := self._hosts.get(name):
            return [FoundAddress(a, f"{via}/etc/hosts", local=True) for a in own]
        kinds = (RecordType.A, RecordType.AAAA)
        replies = await asyncio.gather(*(self.reply(name, kind) for kind in kinds))
        ttls = [reply.ttl for reply in replies if reply.ttl is not None]
        if ttls:
            self._ttls[name] = min(ttls)
        if not any(reply.exists for reply in replies):
            self._missing[name] = _NO_SUCH_NAME
        return [
            FoundAddress(address, via or kind.value)
            for kind, reply in zip(kinds, replies, strict=True)
            for address in reply.records
            if not isinstance(address, Srv | Naptr)
        ]

    def forget(self, name: str) -> None:
        """Leave out what was asked of a host that does not count."""
        self._ttls.pop(name, None)
        for key in _host_keys(name):
            self._unanswered.pop(key, None)

    async def srv(self, names: Sequence[str]) -> dict[str, Reply]:
        """Ask for these SRV records."""
        replies = await asyncio.gather(*(self.reply(name, RecordType.SRV) for name in names))
        return dict(zip(names, replies, strict=True))

    async def targets(self, replies: Mapping[str, Reply]) -> list[FoundAddress]:
        """Return the addresses of all targets, each with the record that named it."""
        wanted: dict[str, str] = {}
        for name, reply in replies.items():
            if reply.ttl is not None:
                self._ttls[name] = reply.ttl
            for record in reply.records:
                if isinstance(record, Srv) and record.target != ".":
                    self._want(wanted, name, record)
        if len(wanted) > MOST_TARGETS:
            raise Unanswered(f"the answer holds {len(wanted):,} SRV targets")
        if not wanted and not self._unanswered and not self._remarks:
            raise Unanswered("its SRV records say that there is no SIP here")
        found = await asyncio.gather(*(self.host(target, via) for target, via in wanted.items()))
        for target, addresses in zip(wanted, found, strict=True):
            if not addresses and not any(key in self._unanswered for key in _host_keys(target)):
                self._remarks[f"its SRV target '{target}' has no address"] = None
        return [address for addresses in found for address in addresses]

    def _want(self, wanted: dict[str, str], name: str, record: Srv) -> None:
        # Host names are compared without case, and each is asked for once.
        target = record.target.rstrip(".").lower()
        if is_host_name(target):
            wanted.setdefault(target, f"SRV {name}, {target}:{record.port}")
        else:
            self._remarks[f"its SRV target {shown(record.target)} is not a host name"] = None

    def result(self, addresses: Sequence[FoundAddress], *others: Reply) -> Located:
        """Put together what was found. Raises Unanswered where that is nothing."""
        incomplete = next((f"{what}: {why}" for what, why in self._unanswered.items()), None)
        if not addresses:
            reasons = dict.fromkeys(self._unanswered.values())
            raise Unanswered(
                " and ".join(reasons)
                or next(iter(self._remarks), None)
                or next(iter(self._missing.values()), _NO_ADDRESS)
            )
        ttls = [*self._ttls.values(), *(item.ttl for item in others if item.ttl is not None)]
        once = {item.address: item for item in reversed(addresses)}
        return Located(
            tuple(reversed(once.values())), min(ttls, default=0), tuple(self._remarks), incomplete
        )
