"""Asks what host names mean now: all at once, with a deadline, distrusting every answer."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, TypeAlias

from sipfw.policy.types import ADDRESSES_ONLY, Hostname
from sipfw.resolver.records import DnsQuestion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sipfw.policy.model import Policy
    from sipfw.resolver.records import Located

Address = IPv4Network | IPv6Network
Lookup: TypeAlias = "Callable[[DnsQuestion], Awaitable[Located]]"

# Three questions one after the other that hang, and no apply waits longer for a few names. To ask
# and to read takes some 10 ms of a processor for each name.
DEADLINE = 10.0
_SECONDS_EACH = 0.05
# The unit of a refresh ends it after 120 s.
_LONGEST = 90.0

# What a name is for: the policy's field, or the command that named it.
PEERS, ADMINS, TRUSTS = "trusted_peers", "admin.networks", "sipfw trust"

# "This network" and the reserved class with the broadcast address (RFC 6890, 2.2.2): the policy
# file may not name them either.
_NEVER_A_SOURCE = frozenset({0, *range(240, 256)})


def host_names(policy: Policy) -> dict[str, str]:
    """Return what a policy's host names ask of DNS, sorted, each with the field it stands in."""
    found = {
        entry.host_key: ADMINS for entry in policy.admin.networks if isinstance(entry, Hostname)
    }
    found |= {
        entry.key: PEERS
        for peer in policy.trusted_peers
        for entry in peer.signalling
        if isinstance(entry, Hostname)
    }
    return dict(sorted(found.items()))


def name_of(key: str) -> str:
    """Return the bare host name of a key, see `Hostname.key`."""
    return key.removesuffix(ADDRESSES_ONLY)


def resolve(
    keys: Iterable[str], deadline: float = DEADLINE, lookup: Lookup | None = None
) -> dict[str, Located | str]:
    """Look all names up at once; a text in the place of an answer says why there is none."""
    wanted = {key: DnsQuestion(name_of(key), sip=name_of(key) == key) for key in keys}
    if not wanted:
        return {}
    # asyncio and what it brings take 50 ms that only a policy with host names pays.
    from sipfw.resolver.together import ask_all  # noqa: PLC0415 - see above

    return ask_all(wanted, min(deadline + _SECONDS_EACH * (len(wanted) - 1), _LONGEST), lookup)


def may_be_a_peer(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether packets can come from an address at all."""
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return False
    return address.version == 6 or int(address) >> 24 not in _NEVER_A_SOURCE
