"""Each trusted peer: what of its packets was let through, what was dropped, and in which words.

The one place for that: `verify`, `top`, `why`, `report` and `metrics` ask here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compiler.names import TRUSTED
from sipfw.deploy.lists.sets import read_policy
from sipfw.errors import BackendError
from sipfw.monitor.peer_counts import count_of, source_counts
from sipfw.monitor.peer_losses import read_losses
from sipfw.monitor.report import Count
from sipfw.monitor.top.source import plain_id
from sipfw.ruleset.match import L4Proto, PortRange
from sipfw.words import format_duration, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.compare.expected import Expectation
    from sipfw.compare.live import Live
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend
    from sipfw.monitor.observe import Subject
    from sipfw.monitor.peer_losses import Loss
    from sipfw.monitor.reading import Growth
    from sipfw.monitor.report import Report, RuleReport
    from sipfw.policy.model import Peer, Policy
    from sipfw.ruleset.addresses import IpAddress, IpNetwork

# For so many seconds a drop is news: `verify` complains, `top` shows it.
RECENT = 900.0
_SHOWN = 3
# Its counter is that of all peers together.
_RTP = "media.peers"
_LOST = frozenset({"lost.drop", "beside.drop", "beside-behind.drop"})


@dataclass(frozen=True, slots=True)
class PeerTraffic:
    """One trusted peer of the policy.

    `sip` and `rtp` were let through, None where the rules count them with those of others.
    `losses` came from its own networks, `beside` from addresses near them that are none of them.
    """

    name: str
    signalling: tuple[IpNetwork, ...] = ()
    media: tuple[IpNetwork, ...] = ()
    media_ports: tuple[PortRange, ...] = ()
    tcp_ports: tuple[PortRange, ...] = ()
    sip: Count | None = None
    rtp: Count | None = None
    losses: tuple[Loss, ...] = ()
    beside: tuple[Loss, ...] = ()

    @property
    def dropped(self) -> int:
        """Packets dropped, as far as the kernel counts them."""
        return sum(item.packets or 0 for item in (*self.losses, *self.beside))

    @property
    def last(self) -> float | None:
        """When one was dropped last, in seconds since 1970; None where none was."""
        return max((item.last for item in (*self.losses, *self.beside)), default=None)

    def since(self, moment: float) -> PeerTraffic:
        """Leave out what has not been dropped any more since that moment."""
        return replace(
            self,
            losses=tuple(item for item in self.losses if item.last >= moment),
            beside=tuple(item for item in self.beside if item.last >= moment),
        )

    def sentences(self) -> tuple[str, ...]:
        """Say what was dropped and what in the policy would have let it in."""
        found = []
        if self.losses:
            found.append(f"{self.name}: {_what(self.losses)} dropped; {self._admitted()}")
        if self.beside:
            sources = _listed(dict.fromkeys(item.source for item in self.beside))
            found.append(
                f"{self.name}: {_what(self.beside)} dropped, from {sources} beside its networks; "
                "media.sources is peers"
            )
        return tuple(found)

    def reason(self, loss: Loss) -> str:
        """Say why one loss was dropped, for a list that names source and packets elsewhere."""
        if loss in self.beside:
            return f"{self.name}, to {door_text(loss)}: beside its networks"
        return f"{self.name}, to {door_text(loss)}: {self._admitted(loss.door.proto)}"

    def in_media_ports(self, loss: Loss) -> bool:
        """Tell whether packets went to a port that the policy has for RTP."""
        port, udp = loss.door.port, loss.door.proto is L4Proto.UDP
        return udp and any(item.first <= port <= item.last for item in self.media_ports)

    def _admitted(self, only: L4Proto | None = None) -> str:
        udp = only is not L4Proto.TCP and any(x.door.proto is L4Proto.UDP for x in self.losses)
        field, ports = (
            ("media.ports", self.media_ports) if udp else ("host.tcp_ports", self.tcp_ports)
        )
        return f"{field} is {', '.join(map(str, ports)) or 'empty'}"


def door_text(loss: Loss) -> str:
    """Write transport and port: `UDP 9000`."""
    return f"{loss.door.proto.upper()} {loss.door.port}"


def traffic(
    subject: Subject, live: Live, rules: Iterable[RuleReport], *, all_peers: bool = False
) -> tuple[PeerTraffic, ...]:
    """Return the peers of the applied policy of which something was dropped, or all of them.

    Reading the policy takes a fifth of a second, so who asks for all has a reason. Raises
    BackendError where the sets cannot be read.
    """
    layout, number = subject.layout, subject.generation
    if layout is None or number is None:
        return ()
    losses = read_losses(subject.expectation, subject.backend)
    if not losses and not all_peers:
        return ()
    counts = source_counts(live, TRUSTED)
    together = next((rule for rule in rules if rule.id == _RTP), None)
    found = _told(layout, number, losses)
    filled = (_counted(item, counts, together, alone=len(found) == 1) for item in found)
    return tuple(item for item in filled if all_peers or item.last is not None)


def lost_of(
    layout: Layout, number: int, expectation: Expectation, backend: Backend
) -> tuple[PeerTraffic, ...]:
    """Return the peers of which something was dropped, without what was let through.

    Raises BackendError where the sets cannot be read.
    """
    losses = read_losses(expectation, backend)
    found = _told(layout, number, losses) if losses else []
    return tuple(item for item in found if item.last is not None)


def _told(layout: Layout, number: int, losses: tuple[Loss, ...]) -> list[PeerTraffic]:
    try:
        policy = read_policy(layout, number)
    except BackendError:
        # Nobody tells the names; that packets were dropped must be said all the same.
        return [PeerTraffic(str(item.source), losses=(item,)) for item in losses]
    return _attributed(peers_of(policy, layout), losses)


def lost_lately(peers: Iterable[PeerTraffic], now: float) -> tuple[str, ...]:
    """Return the sentences about what was dropped lately; `now` in seconds since 1970."""
    return tuple(text for peer in peers for text in peer.since(now - RECENT).sentences())


def unnamed(expectation: Expectation, rules: Iterable[RuleReport]) -> list[RuleReport]:
    """Return the rules that drop what peers lose where no set can note it: without ipset."""
    if expectation.tallies:
        return []
    # A logged drop has two rules of this name: one leads to the log, the other drops.
    return [rule for rule in rules if plain_id(rule.id) in _LOST and rule.action == "drop"]


def lost_unnamed(
    expectation: Expectation, report: Report, growth: Growth | None
) -> tuple[str, ...]:
    """Say what was dropped lately where no set can note it: the rule's own counter is left."""
    if growth is None or growth.seconds > RECENT:
        return ()
    packets = sum(
        growth.rules.get((family, rule.chain, rule.id), (0, 0))[0]
        for rule in unnamed(expectation, report.rules)
        for family in rule.counts
    )
    if not packets:
        return ()
    what, span = pluralize(packets, "packet"), format_duration(growth.seconds)
    text = f"trusted peers: {what} that no rule admits dropped in {span}"
    return (f"{text}; without ipset nobody tells whose and to which port",)


def peers_of(policy: Policy, layout: Layout | None) -> list[PeerTraffic]:
    """Return the peers of a policy; behind host names stand the addresses that are on file."""
    from sipfw.deploy.names.cache import read_names  # noqa: PLC0415 - pydantic comes with it

    known = {} if layout is None else read_names(layout)
    behind = {name: item.addresses for name, item in known.items()}
    return [
        PeerTraffic(
            peer.name,
            tuple(_signalling(peer, behind)),
            peer.media,
            policy.media.ports,
            policy.host.tcp_ports,
        )
        for peer in policy.trusted_peers
    ]


def _signalling(peer: Peer, behind: Mapping[str, tuple[IpNetwork, ...]]) -> list[IpNetwork]:
    from sipfw.policy.types import Hostname  # noqa: PLC0415 - pydantic comes with it

    found: list[IpNetwork] = []
    for entry in peer.signalling:
        found += behind.get(entry.key, ()) if isinstance(entry, Hostname) else (entry,)
    return found


def _counted(
    peer: PeerTraffic,
    counts: Mapping[IpNetwork, Count],
    together: RuleReport | None,
    *,
    alone: bool,
) -> PeerTraffic:
    rtp = Count(together.packets, together.bytes) if alone and together is not None else None
    return replace(peer, sip=count_of(peer.signalling, counts), rtp=rtp)


def _attributed(peers: list[PeerTraffic], losses: Iterable[Loss]) -> list[PeerTraffic]:
    """Give each loss to the peer whose network holds its source, or lies nearest to it."""
    own: dict[str, list[Loss]] = {}
    near: dict[str, list[Loss]] = {}
    for loss in losses:
        found = min(
            (
                (_distance(loss.source, network), -network.prefixlen, peer.name)
                for peer in peers
                for network in (*peer.signalling, *peer.media)
                if network.version == loss.source.version
            ),
            default=None,
        )
        if found is not None:
            (near if found[0] else own).setdefault(found[2], []).append(loss)
    return [
        replace(peer, losses=tuple(own.get(peer.name, ())), beside=tuple(near.get(peer.name, ())))
        for peer in peers
    ]


def _distance(address: IpAddress, network: IpNetwork) -> int:
    first, last = int(network.network_address), int(network.broadcast_address)
    return max(first - int(address), int(address) - last, 0)


def _what(losses: Iterable[Loss]) -> str:
    """Sum packets by port: `600 packets to UDP 9000 and 3 to UDP 9002`."""
    counts: Counter[str] = Counter()
    known = True
    for item in losses:
        counts[door_text(item)] += item.packets or 0
        known = known and item.packets is not None
    if not known:
        return f"packets to {_listed(sorted(counts))}"
    (door, most), *others = counts.most_common()
    parts = [f"{pluralize(most, 'packet')} to {door}"]
    parts += [f"{number:,} to {each}" for each, number in others[: _SHOWN - 1]]
    rest = others[_SHOWN - 1 :]
    if rest:
        parts.append(f"{sum(n for _, n in rest):,} to {pluralize(len(rest), 'more port')}")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _listed(items: Iterable[object]) -> str:
    texts = [str(item) for item in items]
    more = f" and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
