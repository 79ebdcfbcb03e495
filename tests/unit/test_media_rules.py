"""Who may send RTP: what the policy means, what check says of it, and what the walk makes of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.manual import ByHand
from sipfw.compiler.pipeline import compile_policy
from sipfw.diagnostics import Severity
from sipfw.lower.without_ipset import warnings
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.lint import lint
from sipfw.ruleset.match import CtState, Direction, Ports
from sipfw.ruleset.model import Base, Hook, Priority
from sipfw.simulate.evaluate import INCOMING, OUTGOING, evaluate
from sipfw.simulate.packet import Packet
from sipfw.simulate.state import LiveState

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

STRANGER = ip_address("198.51.100.7")
RTP = Packet(
    STRANGER,
    ip_address("192.0.2.1"),
    IpProto.UDP,
    30000,
    12000,
    state=CtState.NEW,
    in_interface="eth0",
    local=False,
)
PEER = "trusted_peers: [{name: a, signalling: [203.0.113.10], media: [203.0.113.0/28]}]\n"
NOBODY = {"expected": {}, "spoken-to": {}, "learned": {}}


def compiled(folder: Path, text: str, by_hand: ByHand | None = None) -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(text)
    return compile_policy(load(Request(file)), by_hand=by_hand or ByHand())


def said(folder: Path, text: str) -> list[str]:
    """Return what check says about media, warnings and faults alike."""
    file = folder / "policy.yaml"
    file.write_text(text)
    loaded = load(Request(file))
    assert {each.severity for each in loaded.remarks} <= {Severity.WARNING}
    return [each.message for each in loaded.remarks if "media" in (each.field or "")]


POLICIES = {
    "alone": "",
    "guarded": "admin: {networks: [192.0.2.0/28]}\n",
    "behind": "signalling: {behind: [docker0, 'br-*']}\n",
    "no learning": "learning: {enabled: false}\n",
    "no learning, behind": "learning: {enabled: false}\nsignalling: {behind: [docker0]}\n",
    "denied": "limits: {unknown_sources: denied}\n",
    "no SIP": "signalling: {udp: [], tcp: []}\n",
    "logged": "logging: {layers: [media, banned]}\n",
    "not tracked": "admin: {networks: [192.0.2.0/28]}\n",
}


@pytest.mark.parametrize("sources", ["peers", "expected"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_guards_rtp(policy: str, sources: str, tmp_path: Path) -> None:
    notrack = ", notrack: true" if policy == "not tracked" else ""
    text = f"media: {{sources: {sources}{notrack}}}\n{PEER}{POLICIES[policy]}"
    for by_hand in (ByHand(), ByHand(blocked=True, guests=True)):
        assert lint(compiled(tmp_path, text, by_hand)) == []
    found = compiled(tmp_path, text)
    live = LiveState(NOBODY)
    assert evaluate(found, RTP, live).dropped
    trusted = replace(RTP, source=ip_address("203.0.113.3"))
    assert not evaluate(found, trusted, live).dropped
    heard = LiveState({**NOBODY, "expected": {STRANGER: 60}})
    assert evaluate(found, RTP, heard).dropped == (sources == "peers")
    other = replace(RTP, destination_port=9999)
    assert evaluate(found, other, live).dropped == (policy in {"guarded", "not tracked"})


def test_from_anywhere_without_the_host_part_there_is_no_rule(tmp_path: Path) -> None:
    found = compiled(tmp_path, PEER)
    assert not evaluate(found, RTP, LiveState({"learned": {}})).dropped
    assert not [rule for chain in found.chains for rule in chain.rules if "media" in rule.id]


def test_what_the_switch_sends_is_noted_once_in_a_while(tmp_path: Path) -> None:
    found = compiled(tmp_path, "media: {sources: expected, notrack: true}\n")
    sent = replace(
        RTP,
        source=ip_address("192.0.2.1"),
        destination=STRANGER,
        source_port=12000,
        destination_port=30000,
        in_interface=None,
        out_interface="eth0",
    )
    first = evaluate(found, sent, LiveState(NOBODY), path=OUTGOING)
    assert first.changes == (
        "keeps the packet out of connection tracking",
        f"adds {STRANGER} to expected",
        f"adds {STRANGER} to spoken-to",
    )
    later = evaluate(found, sent, LiveState({**NOBODY, "spoken-to": {STRANGER: 9}}), path=OUTGOING)
    assert later.changes == first.changes[:1]
    times = {item.name: item.timeout for item in found.sets}
    # Noted just before it would be again, it is still expected for a minute.
    assert times["expected"] - times["spoken-to"] == 60


def test_an_ipv6_source_is_its_prefix(tmp_path: Path) -> None:
    found = compiled(tmp_path, "media: {sources: expected}\nlimits: {ipv6_prefix: 56}\n")
    assert {found.set(name).prefix.ip6 for name in ("expected", "spoken-to")} == {56}


def test_a_switch_behind_this_host_is_asked_for_in_forward(tmp_path: Path) -> None:
    found = compiled(tmp_path, "media: {sources: expected}\nsignalling: {behind: [docker0]}\n")
    led = replace(RTP, out_interface="docker0")
    forward = [Base(Hook.FORWARD, Priority.MANGLE)]
    assert evaluate(found, led, LiveState(NOBODY), path=forward).dropped
    passing = replace(RTP, out_interface="eth1")
    assert not evaluate(found, passing, LiveState(NOBODY), path=forward).dropped
    inside = replace(led, in_interface="docker0")
    assert not evaluate(found, inside, LiveState(NOBODY), path=forward).dropped
    spoken = replace(RTP, destination=STRANGER, source_port=12000, in_interface="docker0")
    walk = evaluate(found, spoken, LiveState(NOBODY), path=INCOMING[:1])
    assert f"adds {STRANGER} to expected" in walk.changes


@pytest.mark.parametrize(
    ("opened", "noted"),
    [
        ("[10050]", "10000-10049, 10051-10100"),
        ("[10000-10010, 10090-10200]", "10011-10089"),
        ("[53, 9000-9999]", "10000-10100"),
        ("[9000-11000]", None),
    ],
)
def test_answers_of_what_is_open_to_everybody_are_not_noted(
    opened: str, noted: str | None, tmp_path: Path
) -> None:
    text = f"media: {{sources: expected, ports: [10000-10100]}}\nhost: {{udp_ports: {opened}}}\n"
    found = compiled(tmp_path, text)
    ranges = [
        ", ".join(map(str, match.ranges))
        for rule in found.chain("SIPFW_OUTPUT").rules
        for match in rule.matches
        if rule.id == "replies.media-spoken" and isinstance(match, Ports)
        if match.direction is Direction.SOURCE
    ]
    assert ranges == ([] if noted is None else [noted])


def test_who_is_banned_by_hand_is_cut_short(tmp_path: Path) -> None:
    found = compiled(tmp_path, "media: {sources: expected}\n", ByHand(blocked=True))
    live = {**NOBODY, "expected": {STRANGER: 60}, "blocked": {STRANGER: None}}
    walk = evaluate(found, RTP, LiveState(live))
    assert walk.decider is not None
    assert walk.decider.id == "media.blocked"


TLS = "signalling: {udp: [5060], tls: [5061]}\n"
TWO = (
    "trusted_peers: [{name: a, signalling: [203.0.113.1]}, {name: b, signalling: [203.0.113.2]}]\n"
)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("media: {sources: anywhere}\n" + TLS + TWO, []),
        ("media: {sources: peers}\n" + PEER, []),
        ("media: {sources: expected}\n" + PEER, []),
        ("media: {sources: peers}\n" + TLS + PEER, ["phones over TLS are never learned"]),
        ("media: {sources: expected}\n" + TLS + PEER, ["phones over TLS are never learned"]),
        ("media: {sources: peers}\nsignalling: {wss: [8443]}\n" + PEER, ["phones over WSS"]),
        ("media: {sources: peers}\nlearning: {enabled: false}\n" + PEER, ["no phone is learned"]),
        (
            "media: {sources: peers}\nlimits: {unknown_sources: denied}\n" + TLS + PEER,
            [],
        ),
        ("media: {sources: peers}\n" + TWO, ["RTP of a, b is taken from the signalling"]),
        ("media: {sources: expected}\n" + TWO, ["stays silent where it only relays"]),
        (
            "media: {sources: peers}\n" + PEER.replace("203.0.113.0/28", "0.0.0.0/0"),
            ["'0.0.0.0/0' lets a large part of the Internet send RTP"],
        ),
        ("media: {sources: expected, ports: []}\n" + TWO, ["guards nothing"]),
    ],
)
def test_check_says_where_it_does_not_fit(policy: str, words: list[str], tmp_path: Path) -> None:
    found = said(tmp_path, policy)
    assert len(found) == len(words), found
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_a_host_without_ipset_is_warned(tmp_path: Path) -> None:
    found = [each.message for each in warnings(compiled(tmp_path, "media: {sources: expected}\n"))]
    assert [text for text in found if "100 addresses at once loses RTP" in text]


def test_a_layer_that_drops_nothing_is_not_logged(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("logging: {layers: [media]}\n")
    messages = [each.message for each in load(Request(file)).remarks]
    assert [text for text in messages if text.startswith("'media' drops nothing here")]
