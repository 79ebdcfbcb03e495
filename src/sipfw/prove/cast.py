"""Who is on the stage and at which addresses: trusted peers at their own, all others at free ones.

A free network is one that no set of the ruleset names, or the proof would not meet strangers.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeAlias

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sipfw.policy.model import Peer, Policy
    from sipfw.ruleset.model import Ruleset

Network: TypeAlias = IPv4Network | IPv6Network

# Networks for documentation (RFC 5737, 3849) and, where a policy names these, for benchmarks
# (RFC 2544).
_POOL4 = ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "198.18.0.0/15")
_POOL6 = "2001:db8::/32"
VERSIONS = (4, 6)


@dataclass(frozen=True, slots=True)
class PeerOnStage:
    """One trusted peer: where its SIP and its media come from."""

    name: str
    address: str
    media: str
    port: int

    @property
    def version(self) -> int:
        """Return 4 or 6."""
        return ip_network(self.address).version


@dataclass(frozen=True, slots=True)
class Cast:
    """The switch, the peers, and networks of strangers by version, one for each who needs one."""

    switch: Mapping[int, str]
    gateway: Mapping[int, str]
    peers: tuple[PeerOnStage, ...]
    strangers: Mapping[int, tuple[Network, ...]]

    def host(self, number: int, version: int, index: int = 10) -> str:
        """Return an address of a stranger's network; in IPv6 each is in a /64 of its own."""
        net = self.strangers[version][number]
        offset = index if version == 4 else (index << 64) + 0x10
        return str(net.network_address + offset)

    def networks(self) -> list[Network]:
        """Return what the world outside the switch answers for."""
        peers = [ip_network(text) for each in self.peers for text in (each.address, each.media)]
        return [*peers, *self.strangers[4], *self.strangers[6]]


def cast_for(
    policy: Policy,
    ruleset: Ruleset,
    resolved: Mapping[str, Sequence[Network]],
    strangers: int,
) -> Cast:
    """Choose addresses; `strangers` is how many networks of them are needed.

    Raises BackendError where the policy names so much that none is free.
    """
    named = [net for item in ruleset.sets for net in item.networks]
    named += [end.network for item in ruleset.sets for end in item.endpoints]
    free4 = list(islice(_free(_networks4(), named), strangers + 1))
    free6 = list(islice(_free(ip_network(_POOL6).subnets(new_prefix=48), named), strangers + 1))
    if min(len(free4), len(free6)) <= strangers:
        raise BackendError("the policy names all networks that a proof could use for strangers")
    return Cast(
        {4: str(free4[0][1]), 6: str(free6[0][1])},
        {4: str(free4[0][2]), 6: str(free6[0][2])},
        tuple(_peers(policy.trusted_peers, resolved)),
        {4: tuple(free4[1:]), 6: tuple(free6[1:])},
    )


def _networks4() -> Iterator[Network]:
    return chain.from_iterable(ip_network(text).subnets(new_prefix=24) for text in _POOL4)


def _free(candidates: Iterator[Network], named: Sequence[Network]) -> Iterator[Network]:
    return (net for net in candidates if not any(_overlap(net, other) for other in named))


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _peers(
    peers: Sequence[Peer], resolved: Mapping[str, Sequence[Network]]
) -> Iterator[PeerOnStage]:
    for peer in peers:
        if peer.transports and "udp" not in peer.transports:
            continue
        port = peer.source_ports[0].first if peer.source_ports else 5060
        for entry in peer.signalling:
            nets = (
                [entry]
                if isinstance(entry, IPv4Network | IPv6Network)
                else resolved.get(entry.key, ())
            )
            for net in nets:
                media = next((_one_of(m) for m in peer.media if m.version == net.version), None)
                address = _one_of(net)
                yield PeerOnStage(peer.name, address, media or address, port)


def _one_of(net: Network) -> str:
    return str(net.network_address if net.num_addresses == 1 else net[1])
