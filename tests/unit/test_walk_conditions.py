"""Each match against packets that meet it, miss it, or do not tell."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, get_args

import pytest

from sipfw.ruleset.addresses import IpProto
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
    PortRange,
    Ports,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    ShorterThan,
    StartsWithOneOf,
    TcpSyn,
    TimeUnit,
    VolumeAbove,
)
from sipfw.ruleset.model import AddressSet, Base, Endpoint, Hook, Priority, Ruleset, SetKind
from sipfw.ruleset.rule import Family, Origin
from sipfw.simulate.conditions import Scene, ask
from sipfw.simulate.match_result import MatchResult
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import Limit, LiveState

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE, OWN = IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1")
SOURCE6, OWN6 = IPv6Address("2001:db8:66::7"), IPv6Address("2001:db8:2::1")
UDP = Packet(SOURCE, OWN, IpProto.UDP, 5070, 5060, in_interface="eth0", payload=b"OPTIONS sip:x")
TCP = replace(UDP, protocol=IpProto.TCP, flags=frozenset({TcpFlag.ACK}))
SYN = replace(TCP, flags=frozenset({TcpFlag.SYN}), payload=b"", state=CtState.NEW)
VRRP = Packet(SOURCE, OWN, IpProto.OTHER, protocol_number=112)
PING = Packet(SOURCE, OWN, IpProto.ICMP, icmp_type=8)
DARK = replace(UDP, destination=None, in_interface=None, payload=None)

DST = Direction.DESTINATION
SIP = (PortRange(5060, 5061), PortRange(5080, 5080))
ORIGIN = Origin("trusted_peers", "policy.yaml", 4)
ONE = PrefixLengths(32, 64)
RATE = Rate(10, TimeUnit.SECOND)

RAW, INPUT = Base(Hook.PREROUTING, Priority.RAW), Base(Hook.INPUT, Priority.FILTER)
OUTPUT = Base(Hook.OUTPUT, Priority.RAW)

RULESET = Ruleset(
    (),
    (
        AddressSet(
            "trusted",
            SetKind.NETWORK,
            "peers",
            ORIGIN,
            networks=(IPv4Network("198.51.100.0/28"), IPv6Network("2001:db8:66::/64")),
        ),
        AddressSet(
            "trusted-ports",
            SetKind.PEER_ENDPOINT,
            "peers by port",
            ORIGIN,
            endpoints=(Endpoint(IPv4Network("198.51.100.7/32"), L4Proto.UDP, 5070),),
        ),
        AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=60),
        AddressSet("failures", SetKind.HOST, "failures", ORIGIN, timeout=60, prefix=ONE),
    ),
    (),
)


def answer(
    match: Match,
    packet: Packet,
    base: Base = RAW,
    live: LiveState | None = None,
    written: Mapping[tuple[str, IPv4Address | IPv6Address], bool] | None = None,
    *,
    untracked: bool = False,
    assume: Limit = Limit.WITHIN,
) -> MatchResult:
    return ask(
        match,
        "a.rule",
        Scene(RULESET, packet, live or LiveState(), base, written or {}, untracked, assume),
    )


HOLD = [
    (Protocol(L4Proto.UDP), UDP),
    (Protocol(L4Proto.TCP), TCP),
    (Ports(L4Proto.UDP, SIP), UDP),
    (Ports(L4Proto.UDP, SIP), replace(UDP, destination_port=5061)),
    (Ports(L4Proto.UDP, SIP), replace(UDP, destination_port=5080)),
    (Ports(L4Proto.UDP, (PortRange(5070, 5070),), Direction.SOURCE), UDP),
    (Address(IPv4Network("198.51.100.0/24")), UDP),
    (Address(IPv4Network("192.0.2.0/24"), DST), UDP),
    (InSet("trusted"), UDP),
    (InSet("trusted"), replace(UDP, source=SOURCE6, destination=OWN6)),
    (InSet("trusted-ports"), UDP),
    (Interface("eth0"), UDP),
    (OpenedTo((PortRange(5060, 5061),)), SYN),
    (OpenedTo((PortRange(22, 22), PortRange(5060, 5060))), SYN),
    (TcpSyn(), SYN),
    (Icmp(8), PING),
    (IpProtocol(112), VRRP),
    (ShorterThan(14), UDP),
    (PayloadAt(L4Proto.UDP, b"OPTIONS "), UDP),
    (PayloadAt(L4Proto.TCP, b"OPTIONS "), TCP),
    (PayloadAt(L4Proto.UDP, b"INVITE ", negate=True), UDP),
    (PayloadAt(L4Proto.UDP, b"INVITE ", negate=True), replace(UDP, payload=b"INV")),
    (StartsWithOneOf((b"INVI", b"OPTI")), UDP),
    (StartsWithOneOf((b"INVI", b"OPTI"), L4Proto.TCP), TCP),
    (HasPayload(), TCP),
    # Nobody asks what segment it is: one that says something.
    (HasPayload(), replace(TCP, payload=None)),
    (HasPayload(), replace(TCP, payload=b"x")),
    (MovedPayload(), replace(UDP, moved=True)),
    (MovedPayload(), replace(TCP, source=SOURCE6, destination=OWN6, moved=True)),
    (PayloadContains(b"SIP:X"), UDP),
    (PayloadContains("É".encode("latin-1")), replace(UDP, payload="é".encode("latin-1"))),
]

MISS = [
    (Protocol(L4Proto.UDP), TCP),
    (Protocol(L4Proto.TCP), PING),
    (Ports(L4Proto.UDP, SIP), replace(UDP, destination_port=5062)),
    (Ports(L4Proto.UDP, SIP), replace(UDP, destination_port=5059)),
    (Ports(L4Proto.TCP, SIP), UDP),
    (Ports(L4Proto.UDP, SIP, Direction.SOURCE), UDP),
    (Ports(L4Proto.UDP, ()), UDP),
    (Address(IPv4Network("192.0.2.0/24")), UDP),
    (Address(IPv6Network("2001:db8::/32")), UDP),
    (InSet("trusted"), replace(UDP, source=IPv4Address("198.51.100.16"))),
    (InSet("trusted"), replace(UDP, source=IPv6Address("2001:db8:67::7"), destination=OWN6)),
    (InSet("trusted", DST), UDP),
    (InSet("trusted-ports"), replace(UDP, source_port=5071)),
    (InSet("trusted-ports"), replace(UDP, source=IPv4Address("198.51.100.8"))),
    (InSet("trusted-ports"), TCP),
    (InSet("trusted-ports", DST), UDP),
    (Interface("lo"), UDP),
    (Interface("eth0", DST), UDP),
    (OpenedTo((PortRange(5061, 5080),)), SYN),
    (TcpSyn(), TCP),
    (TcpSyn(), replace(TCP, flags=frozenset({TcpFlag.SYN, TcpFlag.ACK}))),
    (TcpSyn(), replace(UDP, flags=frozenset({TcpFlag.SYN}))),
    (Icmp(3), PING),
    (Icmp(8), UDP),
    (IpProtocol(50), VRRP),
    (IpProtocol(112), UDP),
    (ShorterThan(13), UDP),
    (ShorterThan(1), SYN),
    (PayloadAt(L4Proto.UDP, b"OPTIONS "), replace(UDP, payload=b" OPTIONS ")),
    (PayloadAt(L4Proto.UDP, b"OPTIONS "), replace(UDP, payload=b"options ")),
    (PayloadAt(L4Proto.UDP, b"OPTIONS "), TCP),
    (PayloadAt(L4Proto.UDP, b"INVITE ", negate=True), TCP),
    (PayloadAt(L4Proto.UDP, b"OPTIONS ", negate=True), UDP),
    (StartsWithOneOf((b"INVI", b"REGI")), UDP),
    (StartsWithOneOf((b"INVI", b"REGI")), replace(UDP, payload=b"INV")),
    (StartsWithOneOf((b"OPTI",)), replace(UDP, payload=b"opti")),
    (StartsWithOneOf((b"INVI", b"OPTI")), TCP),
    (StartsWithOneOf((b"INVI", b"OPTI"), L4Proto.TCP), UDP),
    (StartsWithOneOf((b"INVI", b"REGI"), L4Proto.TCP), TCP),
    (HasPayload(), SYN),
    (HasPayload(), UDP),
    (MovedPayload(), UDP),
    (MovedPayload(), replace(UDP, source=SOURCE6, destination=OWN6)),
    (PayloadContains(b"sip:y"), UDP),
    (PayloadContains(b"OPTIONS"), SYN),
]

UNKNOWN = [
    (InSet("trusted", DST), DARK, False, "its destination is in trusted"),
    (
        Address(IPv4Network("192.0.2.0/24"), DST),
        DARK,
        False,
        "its destination lies in 192.0.2.0/24",
    ),
    (InSet("banned"), UDP, False, "198.51.100.7 is in banned"),
    (Interface("lo"), DARK, False, "it came in through lo"),
    (IpProtocol(112), replace(VRRP, protocol_number=None), False, "it is IP protocol 112"),
    (Icmp(8), replace(PING, icmp_type=None), False, "it is of ICMP type 8"),
    (ShorterThan(11), DARK, False, "it has fewer than 11 bytes"),
    (PayloadAt(L4Proto.UDP, b"BYE "), DARK, False, "it starts with 'BYE '"),
    (PayloadAt(L4Proto.UDP, b"BYE ", negate=True), DARK, True, "it starts with 'BYE '"),
    (StartsWithOneOf((b"BYE ", b"ACK ")), DARK, False, "it starts with 'BYE ' or 'ACK '"),
    (PayloadContains(b"a\r\n\xff"), DARK, False, "it contains 'a\\x0d\\x0a\\xff'"),
]

LIMITS: list[Match] = [
    RateAbove("port", RATE, 20, ONE),
    SeenAtLeast("recent", 20, 60),
    ConnectionsAbove(10, ONE),
    CountAbove("failures", 9),
    VolumeAbove("streams", 49152),
]


@pytest.mark.parametrize(("match", "packet"), HOLD, ids=lambda value: type(value).__name__)
def test_a_match_that_holds(match: Match, packet: Packet) -> None:
    found = answer(match, packet)
    assert found.holds
    assert found.unless is None


@pytest.mark.parametrize(("match", "packet"), MISS, ids=lambda value: type(value).__name__)
def test_a_match_that_does_not_hold(match: Match, packet: Packet) -> None:
    found = answer(match, packet)
    assert not found.holds
    assert found.unless is None


@pytest.mark.parametrize(
    ("match", "packet", "holds", "unless"), UNKNOWN, ids=lambda value: type(value).__name__
)
def test_what_nobody_knows_is_named(match: Match, packet: Packet, holds: bool, unless: str) -> None:
    found = answer(match, packet)
    assert (found.holds, found.unless) == (holds, unless)


@pytest.mark.parametrize("match", LIMITS, ids=lambda value: type(value).__name__)
def test_a_limit_is_assumed_to_be_kept(match: Match) -> None:
    within, beyond = answer(match, SYN), answer(match, SYN, assume=Limit.EXCEEDED)
    assert (within.holds, beyond.holds) == (False, True)
    assert (within.unless or "").startswith("it exceeds ")
    assert (beyond.unless or "").startswith("it stays within ")


@pytest.mark.parametrize("match", LIMITS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("known", [Limit.WITHIN, Limit.EXCEEDED])
def test_a_limit_that_is_known_needs_no_assumption(match: Match, known: Limit) -> None:
    for assume in (Limit.WITHIN, Limit.EXCEEDED):
        found = answer(match, SYN, live=LiveState(limits={"a.rule": known}), assume=assume)
        assert (found.holds, found.unless) == (known is Limit.EXCEEDED, None)


def test_a_common_bucket_holds_while_it_is_kept() -> None:
    match = RateWithin(RATE, 20)
    assert answer(match, UDP) == MatchResult(
        holds=True,
        why="assumed: stays within 10/second with a burst of 20, all sources together",
        unless="it exceeds 10/second with a burst of 20, all sources together",
    )
    assert not answer(match, UDP, assume=Limit.EXCEEDED).holds
    live = LiveState(limits={"a.rule": Limit.WITHIN}, common={"a.rule": Limit.EXCEEDED})
    assert answer(match, UDP, live=live) == MatchResult(
        holds=False, why="exceeds 10/second with a burst of 20, all sources together"
    )


def test_every_match_is_asked_somewhere_here() -> None:
    asked = {type(case[0]) for case in (*HOLD, *MISS, *UNKNOWN)} | {type(m) for m in LIMITS}
    assert asked | {RateWithin, ConntrackState} == set(get_args(Match))


@pytest.mark.parametrize("state", [CtState.NEW, CtState.ESTABLISHED, CtState.UNTRACKED])
def test_the_conntrack_state_counts_after_raw(state: CtState) -> None:
    packet = replace(UDP, state=state)
    for asked in CtState:
        assert answer(ConntrackState((asked,)), packet, INPUT).holds == (asked is state)


def test_before_connection_tracking_everything_is_invalid() -> None:
    packet = replace(UDP, state=CtState.ESTABLISHED)
    assert not answer(ConntrackState((CtState.ESTABLISHED,)), packet).holds
    assert answer(ConntrackState((CtState.INVALID,)), packet).holds


def test_a_packet_that_a_rule_does_not_track_is_untracked() -> None:
    packet = replace(UDP, state=CtState.NEW)
    assert answer(ConntrackState((CtState.UNTRACKED,)), packet, INPUT, untracked=True).holds
    assert not answer(ConntrackState((CtState.NEW,)), packet, INPUT, untracked=True).holds


def test_an_unknown_conntrack_state_is_named() -> None:
    states = ConntrackState((CtState.ESTABLISHED, CtState.RELATED))
    found = answer(states, UDP, INPUT)
    assert (found.holds, found.unless) == (
        False,
        "connection tracking calls it established or related",
    )


def test_what_the_kernel_has_learned() -> None:
    banned = InSet("banned")
    found = answer(banned, UDP, live=LiveState({"banned": {SOURCE: 12}}))
    assert found == MatchResult(holds=True, why="source 198.51.100.7 is in banned for another 12 s")
    other = LiveState({"banned": {OWN: 12}})
    assert answer(banned, UDP, live=other) == MatchResult(
        holds=False, why="source 198.51.100.7 is not in banned"
    )
    assert answer(InSet("banned", DST), UDP, live=other).holds


def test_what_the_packet_itself_wrote_comes_before_what_was_read() -> None:
    banned = InSet("banned")
    read = LiveState({"banned": {SOURCE: 12}})
    assert not answer(banned, UDP, live=read, written={("banned", SOURCE): False}).holds
    assert answer(banned, UDP, written={("banned", SOURCE): True}) == MatchResult(
        holds=True, why="source 198.51.100.7 is in banned"
    )


def test_what_is_kept_by_prefix_is_asked_by_prefix() -> None:
    """A guesser who changes his address within his /64 is one source; in IPv4 each address is."""
    failures = InSet("failures")
    six = replace(UDP, source=SOURCE6, destination=OWN6)
    neighbour, stranger = IPv6Address("2001:db8:66::ffff"), IPv6Address("2001:db8:66:1::7")
    kept = LiveState({"failures": {IPv6Address("2001:db8:66::"): 9}, "banned": {SOURCE6: 9}})
    for source, found in ((SOURCE6, True), (neighbour, True), (stranger, False)):
        assert answer(failures, replace(six, source=source), live=kept).holds is found
    assert not answer(InSet("banned"), replace(six, source=neighbour), live=kept).holds
    wrote = {("failures", IPv6Address("2001:db8:66::")): True}
    assert answer(failures, six, written=wrote).holds
    four = LiveState({"failures": {IPv4Address("198.51.100.0"): 9}})
    assert not answer(failures, UDP, live=four).holds


def test_an_interface_that_the_hook_does_not_have() -> None:
    leaving = replace(UDP, out_interface="eth0")
    assert not answer(Interface("eth0", DST), leaving, INPUT).holds
    assert answer(Interface("eth0", DST), leaving, OUTPUT).holds
    assert not answer(Interface("eth0"), leaving, OUTPUT).holds


def test_a_packet_has_one_family_and_real_ports() -> None:
    assert (UDP.family, replace(UDP, source=SOURCE6, destination=OWN6).family) == (
        Family.IP,
        Family.IP6,
    )
    with pytest.raises(ValueError, match="two families"):
        replace(UDP, source=SOURCE6)
    with pytest.raises(ValueError, match="65536 is not a port"):
        replace(UDP, source_port=65536)
