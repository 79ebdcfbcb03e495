"""Whose packets were dropped, in which words, and for how long that is news."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import Expectation, ExpectedTally, expect, from_json, to_json
from sipfw.compiler import names
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.lower.xtables import Family
from sipfw.monitor.health import HealthState, judge
from sipfw.monitor.peer_losses import Loss
from sipfw.monitor.peer_traffic import (
    RECENT,
    PeerTraffic,
    _attributed,
    lost_lately,
    lost_unnamed,
    peers_of,
)
from sipfw.monitor.reading import Growth
from sipfw.monitor.report import SetReport
from sipfw.policy.load import Request, load
from sipfw.ruleset.match import InSet, L4Proto, PortRange
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import Drop
from sipfw.ruleset.source import Door
from unit.readings import report, rule

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset

NOW = 1_800_000_000.0
CARRIER = PeerTraffic(
    "carrier-a",
    (ip_network("203.0.113.10/32"), ip_network("2001:db8:5::/64")),
    (ip_network("203.0.113.64/27"),),
    (PortRange(10000, 49999),),
)
OTHER = PeerTraffic("carrier-b", (ip_network("203.0.113.200/32"),))


def loss(
    source: str, port: int, packets: int | None = 1, *, tcp: bool = False, ago: float = 1.0
) -> Loss:
    door = Door(L4Proto.TCP if tcp else L4Proto.UDP, port)
    return Loss(ip_address(source), door, packets, None, NOW - ago)


def told(*losses: Loss) -> list[str]:
    return [text for peer in _attributed([CARRIER, OTHER], losses) for text in peer.sentences()]


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (
            [loss("203.0.113.10", 9000, 600)],
            "carrier-a: 600 packets to UDP 9000 dropped; media.ports is 10000-49999",
        ),
        (
            [loss("203.0.113.70", 9000, 1)],
            "carrier-a: 1 packet to UDP 9000 dropped; media.ports is 10000-49999",
        ),
        (
            [loss("2001:db8:5::7", 8088, 3, tcp=True)],
            "carrier-a: 3 packets to TCP 8088 dropped; host.tcp_ports is empty",
        ),
        (
            [loss("203.0.113.10", 9000 + n, 10 - n) for n in range(6)],
            (
                "carrier-a: 10 packets to UDP 9000, 9 to UDP 9001, 8 to UDP 9002 and 18 to 3 more "
                "ports dropped; media.ports is 10000-49999"
            ),
        ),
        (
            [loss("203.0.113.10", 9000, 600), loss("203.0.113.70", 9000, 5)],
            "carrier-a: 605 packets to UDP 9000 dropped; media.ports is 10000-49999",
        ),
        (
            [loss("203.0.113.10", 9000, None)],
            "carrier-a: packets to UDP 9000 dropped; media.ports is 10000-49999",
        ),
        (
            [loss("203.0.113.199", 12000, 600)],
            (
                "carrier-b: 600 packets to UDP 12000 dropped, from 203.0.113.199 beside its "
                "networks; media.sources is peers"
            ),
        ),
        (
            [loss("203.0.113.200", 9000, 2)],
            "carrier-b: 2 packets to UDP 9000 dropped; media.ports is empty",
        ),
    ],
)
def test_a_loss_is_said_in_one_sentence(losses: list[Loss], sentence: str) -> None:
    assert told(*losses) == [sentence]


def test_who_is_no_peer_any_more_is_left_out_of_ipv6() -> None:
    assert _attributed([OTHER], [loss("2001:db8:5::7", 9000)]) == [OTHER]


def test_a_loss_is_news_for_a_quarter_of_an_hour() -> None:
    old, new = loss("203.0.113.10", 9000, 600, ago=RECENT + 1), loss("203.0.113.10", 9002, 3)
    peers = _attributed([CARRIER], [old, new])
    (sentence,) = lost_lately(peers, NOW)
    assert sentence.startswith("carrier-a: 3 packets to UDP 9002 dropped")
    assert lost_lately(_attributed([CARRIER], [old]), NOW) == ()
    assert peers[0].dropped == 603


def test_a_loss_makes_the_health_degraded() -> None:
    health = judge(report(), losses=("carrier-a: 3 packets to UDP 9002 dropped",))
    assert health.state is HealthState.DEGRADED
    assert health.line == "DEGRADED: carrier-a: 3 packets to UDP 9002 dropped"


@pytest.mark.parametrize(("notes", "problems"), [(True, 0), (False, 1)])
def test_a_full_set_of_notes_is_no_fault(notes: bool, problems: int) -> None:
    full = SetReport("sipfw-lost-0a1b2c4", "notes", 4096, 4096, dynamic=True, notes=notes)
    assert len(judge(report(sets=(full,))).problems) == problems


@pytest.mark.parametrize(
    ("seconds", "tallies", "expected"),
    [
        (
            60.0,
            (),
            (
                (
                    "trusted peers: 7 packets that no rule admits dropped in 1 min; without ipset "
                    "nobody tells whose and to which port"
                ),
            ),
        ),
        (RECENT + 1, (), ()),
        (60.0, (ExpectedTally("lost-0a1b2c", "lost-at-0a1b2c", 60, "host", "lost.drop"),), ()),
    ],
)
def test_without_ipset_the_rules_counter_tells(
    seconds: float, tallies: tuple[ExpectedTally, ...], expected: tuple[str, ...]
) -> None:
    wanted = Expectation((), (), (), (), tallies=tallies)
    lost = rule("host", "lost.drop", "drop", 90)
    logged = rule("host", "lost.drop", "go", 90), rule("host", "log.lost.drop.drop", "drop", 90)
    for found in ((lost,), logged):
        grown = Growth(seconds, {(Family.IP, r.chain, r.id): (7, 700) for r in found}, 0)
        assert lost_unnamed(wanted, report(*found), grown) == expected
    assert lost_unnamed(wanted, report(lost), None) == ()


PEER = "{name: a, signalling: [203.0.113.10, '2001:db8:5::a'], media: [203.0.113.64/27]}"


def compiled(**settings: str) -> Ruleset:
    wanted = {"trusted_peers": f"[{PEER}]", "admin.networks": "[192.0.2.0/28]", **settings}
    return compile_policy(load(Request(settings=tuple(f"{k}={v}" for k, v in wanted.items()))))


def expected(**settings: str) -> Expectation:
    ruleset = compiled(**settings)
    return expect(ruleset, lower(ruleset))


@pytest.mark.parametrize(
    ("field", "value", "anew"),
    [
        ("media.ports", "[9000-49999]", True),
        ("host.udp_ports", "[9000]", True),
        ("host.tcp_ports", "[8088]", True),
        ("signalling.tcp", "[5060, 8088]", True),
        ("trusted_peers", f"[{PEER}, {{name: b, signalling: [203.0.113.200]}}]", True),
        ("bans.duration", "2h", False),
        ("limits.hashlimit.rate", "9/second", False),
    ],
)
def test_only_a_policy_that_admits_something_else_begins_with_empty_notes(
    field: str, value: str, anew: bool
) -> None:
    before, after = expected().tallies, expected(**{field: value}).tallies
    assert len(before) == 1
    assert (before != after) == anew


def test_the_record_keeps_where_losses_are_noted() -> None:
    wanted = expected(**{"media.sources": "peers"})
    assert [(item.layer, item.rule) for item in wanted.tallies] == [
        ("media", "beside.drop"),
        ("host", "lost.drop"),
    ]
    data = to_json(wanted)
    assert from_json(data) == wanted
    # As an older version wrote it.
    del data["tallies"]
    assert from_json(data).tallies == ()
    ruleset = compiled(**{"media.sources": "peers"})
    assert expect(ruleset, lower(ruleset, ipset=False)).tallies == ()


@pytest.mark.parametrize("sources", ["anywhere", "peers", "expected"])
def test_only_who_is_asked_for_by_name_leads_to_the_notes(sources: str) -> None:
    """A flood of strangers to closed ports writes nothing, and with `expected` none is beside."""
    ruleset = compiled(**{"media.sources": sources})
    targets = {item.name for item in ruleset.sets if item.kind is SetKind.TARGET}
    noting = {
        chain.name
        for chain in ruleset.chains
        for rule in chain.rules
        if getattr(rule.action, "set", None) in targets
    }
    ways = [
        rule
        for chain in ruleset.chains
        for rule in chain.rules
        if getattr(rule.action, "chain", None) in noting
    ]
    asked = {match.set for way in ways for match in way.matches if isinstance(match, InSet)}
    assert all(any(isinstance(match, InSet) for match in way.matches) for way in ways)
    beside = {names.SET_BESIDE} if sources == "peers" else set()
    assert asked == {names.SET_PEERS} | beside
    assert all(ruleset.chain(name).rules[-1].action == Drop() for name in noting)


def test_what_lies_around_a_peer() -> None:
    ruleset = compiled(**{"media.sources": "peers"})
    assert set(map(str, ruleset.set(names.SET_BESIDE).networks)) == {
        "203.0.113.0/24",
        "2001:db8:5::/48",
    }


def test_without_peers_there_is_nothing_to_note() -> None:
    ruleset = compiled(trusted_peers="[]", **{"media.sources": "peers"})
    assert not [item.name for item in ruleset.sets if item.kind is SetKind.TARGET]
    assert names.SET_PEERS not in {item.name for item in ruleset.sets}


def test_peers_of_a_policy_that_is_not_applied() -> None:
    policy = load(Request(settings=(f"trusted_peers=[{PEER}]",))).policy
    (peer,) = peers_of(policy, None)
    assert peer.name == "a"
    assert ip_network("203.0.113.10/32") in peer.signalling
