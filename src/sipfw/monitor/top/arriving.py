"""What the arriving packets of a moment meet in the applied ruleset."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.kernel.state.sniffer import Arrived, Sample, Sniffed, sniff
from sipfw.monitor.top.source import DroppedSource, plain_id, seen_again, source_prefix
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState, L4Proto, Ports
from sipfw.ruleset.model import Base, Hook, Priority
from sipfw.ruleset.rule import Goto
from sipfw.ruleset.source import source_of
from sipfw.simulate.evaluate import INCOMING, evaluate
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import LiveState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sipfw.kernel.state.members import Member
    from sipfw.ruleset.addresses import IpNetwork
    from sipfw.ruleset.match import PrefixLengths
    from sipfw.ruleset.model import Ruleset
    from sipfw.simulate.state import Elements
    from sipfw.simulate.trace import Trace

# A walk takes some 0.2 ms.
_MOST = 4000
_RAW = (Base(Hook.PREROUTING, Priority.RAW),)
_FLAGS = ((0x01, TcpFlag.FIN), (0x02, TcpFlag.SYN), (0x04, TcpFlag.RST), (0x10, TcpFlag.ACK))


def arriving(
    ruleset: Ruleset, members: Mapping[str, Sequence[Member]], seconds: float
) -> tuple[list[DroppedSource], Sample]:
    """Return who sends what is dropped, and all that arrived meanwhile.

    Of TCP a segment without SYN counts as one of a connection that stands.

    Limits count as kept: who is dropped even so is dropped whatever the limits say. Who is above
    one is not seen here. Raises BackendError.
    """
    sample = sniff(
        signalling_ports(ruleset, L4Proto.UDP),
        signalling_ports(ruleset, L4Proto.TCP),
        seconds,
        _MOST,
    )
    live = LiveState({name: _elements(found) for name, found in members.items()})
    prefix = source_prefix(ruleset)
    layers = {rule.id: chain.layer.value for chain in ruleset.chains for rule in chain.rules}
    found: dict[tuple[IpNetwork, str], DroppedSource] = {}
    walked: Counter[IpNetwork] = Counter()
    for packet, trace in _walked(ruleset, sample.packets, live):
        source = source_of(packet.source, prefix)
        walked[source] += 1
        rule = trace.decider
        if rule is None or not trace.dropped:
            continue
        key = (source, rule.id)
        seen = DroppedSource(
            source,
            layers[rule.id],
            plain_id(rule.id),
            rule.summary,
            1,
            packet.moment,
            packet.moment,
        )
        found[key] = seen_again(found.get(key), seen)
    by_source = arrivals(sample, prefix)
    return [_whole(item, walked, by_source) for item in found.values()], sample


def arrivals(sample: Sample, prefix: PrefixLengths) -> dict[IpNetwork, Arrived]:
    """Return what arrived by source."""
    found: dict[IpNetwork, Arrived] = {}
    for address, item in sample.arrived.items():
        one = found.setdefault(source_of(address, prefix), Arrived(0, item.first, item.last))
        one.packets += item.packets
        one.first, one.last = min(one.first, item.first), max(one.last, item.last)
    return found


def _whole(
    item: DroppedSource, walked: Mapping[IpNetwork, int], arrived: Mapping[IpNetwork, Arrived]
) -> DroppedSource:
    """Reckon with all packets of a flood where only its first ones were looked into."""
    all_of_it = arrived[item.network]
    if all_of_it.packets == walked[item.network]:
        return item
    share = (item.packets or 0) / walked[item.network]
    return replace(item, packets=round(share * all_of_it.packets), last=all_of_it.last)


def _elements(members: Sequence[Member]) -> Elements:
    return {
        item.address if item.door is None else (item.address, item.door): item.left
        for item in members
    }


def signalling_ports(ruleset: Ruleset, proto: L4Proto) -> frozenset[int]:
    """Return the ports whose packets the ruleset looks into."""
    return frozenset(
        port
        for chain in ruleset.chains
        if chain.base is not None and chain.base.hook is Hook.PREROUTING
        for rule in chain.rules
        if isinstance(rule.action, Goto)
        for match in rule.matches
        if isinstance(match, Ports) and match.proto is proto
        for item in match.ranges
        for port in range(item.first, item.last + 1)
    )


def _walked(
    ruleset: Ruleset, packets: Sequence[Sniffed], live: LiveState
) -> Iterator[tuple[Sniffed, Trace]]:
    """Walk each packet; those that are alike walk once."""
    walks: dict[tuple[object, ...], Trace] = {}
    for item in packets:
        key = (
            item.source,
            item.source_port,
            item.destination_port,
            item.tcp,
            item.flags,
            item.payload,
            item.interface,
        )
        if key not in walks:
            path = INCOMING if item.tcp else _RAW
            walks[key] = evaluate(ruleset, _packet(item), live, path=path)
        yield item, walks[key]


def _packet(item: Sniffed) -> Packet:
    flags = frozenset(flag for bit, flag in _FLAGS if item.flags & bit)
    opens = not item.tcp or TcpFlag.SYN in flags
    return Packet(
        item.source,
        item.destination,
        IpProto.TCP if item.tcp else IpProto.UDP,
        item.source_port,
        item.destination_port,
        flags=flags,
        in_interface=item.interface,
        payload=item.payload,
        state=CtState.NEW if opens else CtState.ESTABLISHED,
    )
