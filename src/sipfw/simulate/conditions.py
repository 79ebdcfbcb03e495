"""One match asked about one packet: does it hold, why, and what had to be assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from sipfw.ruleset.addresses import IpAddress, IpProto
from sipfw.ruleset.match import (
    Address,
    ConnectionsAbove,
    ConntrackState,
    CountAbove,
    CtState,
    Direction,
    HasPayload,
    Icmp,
    InSet,
    Interface,
    IpProtocol,
    L4Proto,
    Match,
    MovedPayload,
    OpenedTo,
    PayloadAt,
    PayloadContains,
    Ports,
    Protocol,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    ShorterThan,
    StartsWithOneOf,
    TcpSyn,
    VolumeAbove,
)
from sipfw.ruleset.model import AddressSet, Base, Hook, Priority, Ruleset, SetKind
from sipfw.ruleset.rule import Family
from sipfw.ruleset.source import Door, key_address, source_text
from sipfw.simulate.match_result import MatchResult, nobody_knows, of_protocol
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.payload_conditions import (
    has_payload,
    moved,
    payload_at,
    payload_contains,
    shorter,
    starts_with_one_of,
)
from sipfw.simulate.state import Limit, LiveState, Membership, Volume
from sipfw.words import format_duration, pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.simulate.state import Key

_Counted: TypeAlias = CountAbove | VolumeAbove
_Limit: TypeAlias = RateAbove | RateWithin | SeenAtLeast | ConnectionsAbove | _Counted

_ENDS = {Direction.SOURCE: "source", Direction.DESTINATION: "destination"}

_LOOPBACK = "lo"

_IP_HEADER = {Family.IP: 20, Family.IP6: 40}
_TCP_HEADER = (20, 60)
# Of a segment whose content is not asked about: as long as one usually is.
_USUAL_SEGMENT = 1440
_OPENING = frozenset({TcpFlag.SYN})
_SYN_MASK = frozenset(TcpFlag)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a match may look at.

    `written` are the changes that this packet itself has made to dynamic sets; `untracked` tells
    whether a rule took it out of connection tracking; `assume` stands in for unknown limits.
    """

    ruleset: Ruleset
    packet: Packet
    live: LiveState
    base: Base
    written: Mapping[tuple[str, Key], bool]
    untracked: bool
    assume: Limit


def ask(match: Match, rule_id: str, scene: Scene) -> MatchResult:
    """Answer one match of one rule."""
    packet = scene.packet
    match match:
        case PayloadContains():
            return payload_contains(match, packet)
        case Protocol():
            return of_protocol(match.proto, packet)
        case Ports():
            return _ports(match, packet)
        case Address():
            return _address(match, packet)
        case InSet():
            return _in_set(match, scene)
        case Interface():
            return _interface(match, scene)
        case ConntrackState():
            return _conntrack(match, scene)
        case OpenedTo():
            return _opened_to(match, packet)
        case TcpSyn():
            opens = packet.protocol is IpProto.TCP and packet.flags & _SYN_MASK == _OPENING
            return MatchResult(
                opens, "opens a TCP connection" if opens else "opens no TCP connection"
            )
        case Icmp():
            return _icmp(match, packet)
        case IpProtocol():
            return _ip_protocol(match, packet)
        case ShorterThan():
            return shorter(match, packet)
        case PayloadAt():
            return payload_at(match, packet)
        case StartsWithOneOf():
            return starts_with_one_of(match, packet)
        case HasPayload():
            return has_payload(packet)
        case MovedPayload():
            return moved(packet)
        case (
            RateAbove()
            | RateWithin()
            | SeenAtLeast()
            | ConnectionsAbove()
            | CountAbove()
            | VolumeAbove()
        ):
            return _limit(match, rule_id, scene)
        case _:
            assert_never(match)


def _ports(match: Ports, packet: Packet) -> MatchResult:
    proto = of_protocol(match.proto, packet)
    if not proto.holds:
        return proto
    port, end = packet.port(match.direction), _ENDS[match.direction]
    wanted = ", ".join(str(item) for item in match.ranges)
    if port is None:
        return nobody_knows(f"the {end} port", f"its {end} port is among {wanted}")
    if any(item.first <= port <= item.last for item in match.ranges):
        return MatchResult(holds=True, why=f"{end} port {port}/{match.proto}")
    return MatchResult(holds=False, why=f"{end} port {port} is not among {wanted}")


def _opened_to(match: OpenedTo, packet: Packet) -> MatchResult:
    """A packet's port is the one that its sender wrote."""
    port, wanted = packet.destination_port, ", ".join(map(str, match.ranges))
    holds = any(item.first <= port <= item.last for item in match.ranges)
    return MatchResult(holds, f"opened to port {port}{'' if holds else f', not {wanted}'}")


def _address(match: Address, packet: Packet) -> MatchResult:
    end, address = _ENDS[match.direction], packet.address(match.direction)
    if address is None:
        return nobody_knows(f"the {end} address", f"its {end} lies in {match.network}")
    holds = address in match.network
    return MatchResult(holds, f"{end} {address} is {'' if holds else 'not '}in {match.network}")


def _in_set(match: InSet, scene: Scene) -> MatchResult:
    end, address = _ENDS[match.direction], scene.packet.address(match.direction)
    item = scene.ruleset.set(match.set)
    if address is None and item.dynamic and scene.live.elements.get(item.name) == {}:
        return MatchResult(holds=False, why=f"nothing is in {item.name}")
    if address is None:
        return nobody_knows(f"the {end} address", f"its {end} is in {item.name}")
    if not item.dynamic:
        return _in_static(item, address, match.direction, scene.packet)
    found = _in_dynamic(item, address, match.direction, scene)
    if found.present is None and item.name in scene.live.elements:
        why = f"the {end} port is not known, taken as none in {match.set}"
        return MatchResult(
            holds=False, why=why, unless=f"it comes from a port that is in {match.set}"
        )
    if found.present is None:
        text = f"{address} is in {match.set}"
        return MatchResult(
            holds=False, why=f"{match.set} was not read, taken as empty", unless=text
        )
    left = "" if found.left is None else f" for another {format_duration(found.left)}"
    holds, who = found.present, source_text(address, item.prefix)
    return MatchResult(holds, f"{end} {who} is {'' if holds else 'not '}in {match.set}{left}")


def _in_static(
    item: AddressSet, address: IpAddress, direction: Direction, packet: Packet
) -> MatchResult:
    end, port = _ENDS[direction], packet.port(direction)
    ports = {
        endpoint.port
        for endpoint in item.endpoints
        if packet.protocol == endpoint.proto.value and address in endpoint.network
    }
    if port in ports or any(address in network for network in item.networks):
        return MatchResult(holds=True, why=f"{end} {address} is in {item.name}")
    if port is None and ports:
        some = " or ".join(str(number) for number in sorted(ports))
        return nobody_knows(f"the {end} port", f"it comes from port {some}")
    return MatchResult(holds=False, why=f"{end} {address} is not in {item.name}")


def _in_dynamic(
    item: AddressSet, address: IpAddress, direction: Direction, scene: Scene
) -> Membership:
    key = element_key(item, address, direction, scene.packet)
    written = scene.written.get((item.name, key))
    return scene.live.ask(item.name, key) if written is None else Membership(written)


def element_key(item: AddressSet, address: IpAddress, direction: Direction, packet: Packet) -> Key:
    """Return what a dynamic set keeps of one end of a packet; without a port it is the address."""
    if item.kind not in {SetKind.ENDPOINT, SetKind.TARGET}:
        return key_address(address, item.prefix)
    sent_to = item.kind is SetKind.TARGET
    port = packet.destination_port if sent_to else packet.port(direction)
    if port is None or packet.protocol in {IpProto.ICMP, IpProto.OTHER}:
        return address
    return address, Door(L4Proto(packet.protocol.value), port)


def _interface(match: Interface, scene: Scene) -> MatchResult:
    incoming = match.direction is Direction.SOURCE
    verb = "came in through" if incoming else "leaves through"
    if scene.base.hook is not Hook.FORWARD and incoming == (scene.base.hook is Hook.OUTPUT):
        return MatchResult(holds=False, why=f"no packet of this hook {verb} an interface")
    name = scene.packet.interface(match.direction)
    if name is None and match.name == _LOOPBACK and scene.packet.local is not None:
        holds = scene.packet.local
        return MatchResult(holds, f"{'comes' if holds else 'does not come'} from this host itself")
    if name is None:
        return nobody_knows("the interface", f"it {verb} {match.name}")
    holds = match.fits(name)
    return MatchResult(holds, f"{verb} {name}" if holds else f"{verb} {name}, not {match.name}")


def _conntrack(match: ConntrackState, scene: Scene) -> MatchResult:
    wanted = " or ".join(match.states)
    state = CtState.UNTRACKED if scene.untracked else scene.packet.state
    if scene.base.priority is Priority.RAW and not scene.untracked:
        # nf_ct_get() finds no connection yet, which xt_conntrack and nft both call invalid.
        state = CtState.INVALID
    if state is None:
        return nobody_knows("the conntrack state", f"connection tracking calls it {wanted}")
    holds = state in match.states
    return MatchResult(holds, f"state {state}" if holds else f"state {state}, not {wanted}")


def _ip_protocol(match: IpProtocol, packet: Packet) -> MatchResult:
    if packet.protocol is not IpProto.OTHER:
        return MatchResult(holds=False, why=f"is {packet.protocol}, not protocol {match.number}")
    if packet.protocol_number is None:
        return nobody_knows("the IP protocol", f"it is IP protocol {match.number}")
    holds = packet.protocol_number == match.number
    more = "" if holds else f", not {match.number}"
    return MatchResult(holds=holds, why=f"is IP protocol {packet.protocol_number}{more}")


def _icmp(match: Icmp, packet: Packet) -> MatchResult:
    if packet.protocol is not IpProto.ICMP:
        return MatchResult(holds=False, why=f"is {packet.protocol}, not icmp")
    if packet.icmp_type is None:
        return nobody_knows("the ICMP type", f"it is of ICMP type {match.type}")
    holds = packet.icmp_type == match.type
    more = "" if holds else f", not {match.type}"
    return MatchResult(holds, f"is of ICMP type {packet.icmp_type}{more}")


def _limit(
    match: _Limit,
    rule_id: str,
    scene: Scene,
) -> MatchResult:
    text = _limit_text(match)
    common = isinstance(match, RateWithin)
    limits = scene.live.common if common else scene.live.limits
    known = limits.get(rule_id, Limit.UNKNOWN)
    if isinstance(known, Volume):
        size = match.size if isinstance(match, VolumeAbove) else 0
        known = _against(known, size, scene.packet)
    exceeded = (scene.assume if known is Limit.UNKNOWN else known) is Limit.EXCEEDED
    holds = exceeded != common
    words = f"exceeds {text}" if exceeded else f"stays within {text}"
    if known is not Limit.UNKNOWN:
        return MatchResult(holds, words)
    other = f"it stays within {text}" if exceeded else f"it exceeds {text}"
    return MatchResult(holds, f"assumed: {words}", unless=other)


def _against(volume: Volume, size: int, packet: Packet) -> Limit:
    """Add the packet, as far as its length is known: TCP's header may have options."""
    shortest, longest = (header + _IP_HEADER[packet.family] for header in _TCP_HEADER)
    if packet.payload is None:
        longest = max(longest, _IP_HEADER[packet.family] + _TCP_HEADER[0] + _USUAL_SEGMENT)
    else:
        shortest, longest = shortest + len(packet.payload), longest + len(packet.payload)
    if volume.counted + volume.times * shortest > size:
        return Limit.EXCEEDED
    fits = volume.counted + volume.times * longest <= size
    return Limit.WITHIN if fits else Limit.UNKNOWN


def _limit_text(match: _Limit) -> str:
    match match:
        case RateAbove():
            return f"{match.rate} with a burst of {match.burst}"
        case RateWithin():
            return f"{match.rate} with a burst of {match.burst}, all sources together"
        case SeenAtLeast():
            return f"{pluralize(match.hits, 'request')} in {format_duration(match.seconds)}"
        case ConnectionsAbove():
            return pluralize(match.count, "connection")
        case CountAbove():
            return f"a count of {match.count} in {match.set}"
        case VolumeAbove():
            return f"{match.size:,} bytes in {match.set}"
        case _:
            assert_never(match)
