"""What every layer needs: the policy, where its values came from, and resolved host names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.policy.model import Peer, Policy, Transport, UnknownSources
from sipfw.policy.types import Hostname, Network
from sipfw.ruleset.match import L4Proto, PortRange, Ports, PrefixLengths
from sipfw.ruleset.rule import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.policy.merge import Origins


# ipset's and xt_hashlimit's usual size.
_FEWEST_BUCKETS = 65536
_FEWEST_ENTRIES = 16384


@dataclass(frozen=True, slots=True)
class Context:
    """Read-only input of the layers.

    `resolved` maps what host names ask of DNS (`Hostname.key`) to their addresses, `feeds` block
    lists to their networks.
    """

    policy: Policy
    origins: Origins
    resolved: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    feeds: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)

    def origin(self, *path: str | int) -> Origin:
        """Name the policy value that causes a rule."""
        location = self.origins.nearest(path)
        return Origin(".".join(str(part) for part in path), location.file, location.line)

    def addresses(self, peer: Peer) -> list[Network]:
        """Return a peer's signalling networks with host names replaced by their addresses."""
        found: list[Network] = []
        for entry in peer.signalling:
            if isinstance(entry, Hostname):
                found.extend(self.resolved.get(entry.key, ()))
            else:
                found.append(entry)
        return found

    def admin_networks(self) -> list[Network]:
        """Return who may manage the host, host names replaced by their addresses."""
        found: list[Network] = []
        for entry in self.policy.admin.networks:
            if isinstance(entry, Hostname):
                found.extend(self.resolved.get(entry.host_key, ()))
            else:
                found.append(entry)
        return found

    @property
    def learning(self) -> bool:
        """Tell whether the switch's replies are judged."""
        return self.policy.learning.enabled and not self.denied

    @property
    def bans(self) -> bool:
        """Tell whether anything can be banned."""
        return self.policy.bans.enabled and not self.denied

    @property
    def denied(self) -> bool:
        """Tell whether only trusted peers may come in."""
        return self.policy.limits.unknown_sources is UnknownSources.DENIED

    @property
    def source(self) -> PrefixLengths:
        """How much of an address is one source (`limits.ipv6_prefix`; RFC 6177 for its default)."""
        return PrefixLengths(32, self.policy.limits.ipv6_prefix)

    @property
    def probation(self) -> bool:
        """Tell whether a banned source may prove itself."""
        return self.bans and self.learning and self.policy.bans.probation

    def buckets(self, seconds: int) -> int:
        """Return how many buckets of unknown sources can live at once, as a power of two.

        A full table limits nobody, so it must hold all that the cap on unknown sources lets in
        before the first one is forgotten, `seconds` after it was last used.
        """
        rate = self.policy.limits.aggregate
        wanted = 0 if rate is None else 2 * rate.amount * (seconds + 1) // rate.unit.seconds
        return max(_FEWEST_BUCKETS, 1 << (wanted - 1).bit_length() if wanted else 0)

    def entries(self, seconds: int, share: int = 1) -> int:
        """Return how many entries of unknown sources a set must hold, as a power of two.

        `share` packets make one. nf_tables takes 8 bytes for each at once (nft_rhash_init makes
        room for the whole size), so there is no more of them than the cap lets in.
        """
        rate = self.policy.limits.aggregate
        if rate is None:
            return _FEWEST_BUCKETS
        wanted = -(-rate.amount * (seconds + 1) // (rate.unit.seconds * share))
        return max(_FEWEST_ENTRIES, 1 << (wanted - 1).bit_length())

    def signalling_ports(self, *transports: Transport) -> tuple[PortRange, ...]:
        """Return the ports of these transports, sorted, adjacent ones joined."""
        return join_ports(p for t in transports for p in getattr(self.policy.signalling, t.value))

    def signalling(self) -> list[Ports]:
        """Return one match per IP protocol that covers every signalling port."""
        found = [
            Ports(L4Proto.UDP, self.signalling_ports(Transport.UDP)),
            Ports(
                L4Proto.TCP,
                self.signalling_ports(Transport.TCP, Transport.TLS, Transport.WS, Transport.WSS),
            ),
        ]
        return [match for match in found if match.ranges]


def join_ports(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """Sort port ranges and join those that touch, so that a rule needs fewer slots."""
    joined: list[PortRange] = []
    for item in sorted(ranges):
        if joined and item.first <= joined[-1].last + 1:
            joined[-1] = PortRange(joined[-1].first, max(joined[-1].last, item.last))
        else:
            joined.append(item)
    return tuple(joined)
