"""Rules for what is banned and trusted by hand: none without need, in their place with it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sipfw.compiler.context import Context
from sipfw.compiler.manual import NOBODY, ByHand, with_by_hand
from sipfw.compiler.pipeline import compile_policy
from sipfw.compiler.without_string_match import without_string_match
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.codec import decode, encode
from sipfw.ruleset.lint import lint
from sipfw.ruleset.match import CtState
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import Drop
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.packet import Packet
from sipfw.simulate.state import LiveState
from sipfw.simulate.trace import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

POLICY: dict[str, Any] = {
    "signalling": {"udp": [5060], "tcp": [5060], "tls": [5061]},
    "admin": {"networks": ["192.0.2.0/28"]},
    "media": {"sources": "peers"},
    "trusted_peers": [
        {"name": "a", "signalling": ["203.0.113.10"], "tier": "large"},
        {"name": "b", "signalling": ["203.0.113.20"], "source_ports": [5060]},
        {"name": "c", "signalling": ["203.0.113.30"], "transports": ["udp", "tls"]},
    ],
}
BOTH = ByHand(blocked=True, guests=True)


def compiled(tmp_path: Path, by_hand: ByHand, **changes: Any) -> Ruleset:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({**POLICY, **changes}))
    return compile_policy(load(Request(path)), by_hand=by_hand)


def ids(ruleset: Ruleset, chain: str) -> list[str]:
    return [rule.id for rule in ruleset.chain(chain).rules]


def test_without_need_nothing_is_different(tmp_path: Path) -> None:
    found = compiled(tmp_path, NOBODY)
    assert not {"blocked", "guests"} & {item.name for item in found.sets}
    assert "SIP_BLOCKED" not in [chain.name for chain in found.chains]


def test_the_rules_stand_right_behind_the_peers(tmp_path: Path) -> None:
    found = compiled(tmp_path, BOTH)
    assert lint(found) == []
    assert ids(found, "SIP_TRUSTED")[-9:] == [
        "trusted.ports",
        "trusted.guest",
        "identity.blocked",
        "scanner.request",
        "scanner.call",
        "scanner.others-call",
        "scanner.response",
        "scanner.probe",
        "trusted.others",
    ]
    encrypted = ids(found, "SIP_ENCRYPTED")
    place = encrypted.index("encrypted.guest")
    assert encrypted[place - 1].startswith("encrypted.trusted")
    assert encrypted[place + 1] == "encrypted.blocked"
    assert encrypted[place + 2] == "encrypted.others"
    for chain, prefix in (("SIP_STREAM", "stream"), ("SIP_STREAM_ENCRYPTED", "stream-encrypted")):
        stream = ids(found, chain)
        place = stream.index(f"{prefix}.guest")
        assert stream[place - 1].startswith(f"{prefix}.trusted")
        assert place < stream.index(f"{prefix}.completed")
    # Connections of the switch itself come by no chain of ours in raw.
    stream = ids(found, "SIP_STREAM")
    assert stream.index("stream.blocked") == stream.index("stream.guest") + 1
    for chain, prefix in (("SIP_FAILURE", "failure"), ("SIP_WRONG", "wrong")):
        counted = ids(found, chain)
        assert counted[counted.index(f"{prefix}.guests") + 1] in {
            f"{prefix}.count",
            f"{prefix}.learned",
        }
    assert ids(found, "SIP_MEDIA")[:3] == ["media.blocked", "media.peers", "media.guests"]
    layers = [chain.layer for chain in found.chains]
    assert layers.index(Layer.BANNED) == [c.name for c in found.chains].index("SIP_BLOCKED")


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"unknown_sources": "denied"}},
        {"bans": {"enabled": False}},
        {"learning": {"enabled": False}},
        {"signalling": {"udp": [], "tcp": [], "tls": [5061]}},
        {"logging": {"layers": ["banned", "trusted"]}},
        {"trusted_peers": []},
    ],
)
@pytest.mark.parametrize("by_hand", [BOTH, ByHand(blocked=True), ByHand(guests=True)])
def test_every_policy_has_a_place_for_them(
    tmp_path: Path, changes: dict[str, Any], by_hand: ByHand
) -> None:
    found = compiled(tmp_path, by_hand, **changes)
    assert lint(found) == []
    assert decode(encode(found)) == found
    assert lint(without_string_match(found)) == []
    rules = {rule.id for chain in without_string_match(found).chains for rule in chain.rules}
    assert ("encrypted.blocked" in rules) == by_hand.blocked
    assert ("encrypted.guest" in rules) == by_hand.guests


def test_one_after_the_other_is_as_both_at_once(tmp_path: Path) -> None:
    loaded_at_once = compiled(tmp_path, BOTH)
    loaded = load(Request(tmp_path / "policy.yaml"))
    context = Context(loaded.policy, loaded.origins)
    for first in (ByHand(blocked=True), ByHand(guests=True)):
        step = with_by_hand(compile_policy(loaded), context, first)
        found = with_by_hand(step, context, BOTH)
        assert found.chains == loaded_at_once.chains
        assert set(found.sets) == set(loaded_at_once.sets)
        assert with_by_hand(found, context, BOTH) == found


def test_a_wall_is_logged_as_the_banned_layer_is(tmp_path: Path) -> None:
    found = compiled(tmp_path, BOTH, logging={"layers": ["banned"]})
    drops = [r.id for c in found.chains for r in c.rules if isinstance(r.action, Drop)]
    assert "log.blocked.drop.drop" in drops
    assert "blocked.drop" not in drops


def sip(source: str, payload: bytes, port: int = 5060, proto: IpProto = IpProto.UDP) -> Packet:
    return Packet(ip_address(source), ip_address("192.0.2.200"), proto, 5060, port, payload=payload)


REQUESTS = [
    sip("198.51.100.66", b"REGISTER sip:x SIP/2.0\r\n"),
    sip("198.51.100.66", b"OPTIONS sip:x SIP/2.0\r\n"),
    sip("198.51.100.66", b"INVITE sip:x SIP/2.0\r\n", proto=IpProto.TCP),
    sip("198.51.100.66", b"\x16\x03\x01", 5061, IpProto.TCP),
]


def holding(*sets: str) -> LiveState:
    source = ip_address("198.51.100.66")
    every = ("blocked", "guests", "banned", "banned-tcp", "learned", "outward")
    return LiveState({name: {source: 60} if name in sets else {} for name in every})


@pytest.mark.parametrize("packet", REQUESTS)
def test_the_walk_stops_at_the_wall_though_the_source_was_learned(
    tmp_path: Path, packet: Packet
) -> None:
    trace = evaluate(compiled(tmp_path, BOTH), packet, holding("blocked", "learned"))
    assert trace.decider is not None
    assert trace.decider.id == "blocked.drop"


@pytest.mark.parametrize("packet", REQUESTS)
def test_the_walk_lets_a_guest_through_though_he_is_banned(tmp_path: Path, packet: Packet) -> None:
    trace = evaluate(compiled(tmp_path, BOTH), packet, holding("guests", "banned", "banned-tcp"))
    assert not trace.dropped


@pytest.mark.parametrize("behind", [[], ["docker0"]])
@pytest.mark.parametrize(
    ("sets", "verdict"),
    [
        (("blocked",), Verdict.RESET),
        (("blocked", "learned"), Verdict.RESET),
        (("banned-tcp",), Verdict.RESET),
        (("guests", "blocked", "banned-tcp"), Verdict.PASSED),
        ((), Verdict.PASSED),
    ],
)
def test_a_connection_of_the_switch_itself_meets_the_wall(
    tmp_path: Path, behind: list[str], sets: tuple[str, ...], verdict: Verdict
) -> None:
    found = compiled(
        tmp_path, BOTH, signalling={**POLICY["signalling"], "behind": behind}, admin={}
    )
    packet = replace(
        sip("198.51.100.66", b"SIP/2.0 200 OK\r\n", 40001, IpProto.TCP), state=CtState.ESTABLISHED
    )
    without = evaluate(found, packet, holding(*sets))
    assert without.verdict is Verdict.PASSED
    live = holding("outward", *sets)
    live = replace(live, elements={**live.elements, "asked": live.elements["outward"]})
    trace = evaluate(found, packet, live)
    # Where the switch is behind this host, no reset can be sent, and INPUT is not where it goes.
    resets = verdict is Verdict.RESET
    assert trace.verdict is (Verdict.DROPPED if behind and resets else verdict)
