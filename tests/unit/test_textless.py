"""A kernel without text searches: what is left of the rules is told, sound, and blames nobody."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import expect
from sipfw.compiler.pipeline import compile_policy
from sipfw.compiler.reached import asked
from sipfw.compiler.without_string_match import without_string_match
from sipfw.kernel.backend import Options
from sipfw.kernel.nft.backend import NftBackend
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.lower.naming import base_id
from sipfw.lower.nftables import lower
from sipfw.policy.load import LoadedPolicy, Request, load, shipped_profiles
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.lint import lint
from sipfw.ruleset.match import CtState, PayloadContains
from sipfw.simulate.evaluate import OUTGOING, evaluate
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import Limit, LiveState

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.lower.nftables_plan import NftPlan, NftRule, NftSet
    from sipfw.ruleset.model import Ruleset

POLICY = """\
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, "2001:db8:5::/64"], tier: large}
  - {name: b, signalling: [198.51.100.7], source_ports: [5060, 5070]}
signalling: {udp: [5060], tcp: [5060], tls: [5061], ws: [8080]}
media: {sources: peers}
"""
LACKS = ["the kernel has no nft_compat", "the kernel has no xt_string"]
# What a reply's text teaches, what waits for that, and what looks for a tool in a text.
TAUGHT_CHAINS = {
    *("CALLERS", "LEARNED", "REGISTERED", "REQUESTS", "TOOLS", "LOGIN", "STRANGER_LOGIN", "TEXTS"),
    *("PORT_LOGINS", "NEW_LOGINS", "NEW_PORT_LOGINS", "ASKED_METHOD", "ASKED_REGISTER"),
    *(
        "PORT_FULL",
        "PORT_LOGIN",
        "PROBATION",
        "REPEATED",
        "REPEATED_LANE",
        "GUESSES",
        "CHALLENGED",
        "CHALLENGED_LANE",
    ),
    *("ECHO_REGISTER", "ECHO_INVITE", "STREAM_REGISTERED", "STREAM_TOOL", "STREAM_PIPELINED"),
    *("STREAM_LOGIN", "STREAM_REFUSED", "MASKED_REPLIES", "MASKED_REFUSED"),
    *("SUCCESS", "METHOD", "REGISTER_DONE", "INVITE_DONE", "LEARN", "CALLED"),
    *("RENEW", "RENEW_SOURCE", "REFUSED", "CHALLENGE", "STALE", "NO_FAULT", "FORBIDDEN"),
    *("FORBIDDEN_LOGIN", "CALL_REFUSED", "PROBED", "PROBED_METHOD", "WRONG"),
    *("LEARNED_FAILURE", "FAILURE", "BANNING", "CHALLENGE_BARE", "UNANSWERED", "PROBED_BARE"),
}
TAUGHT_SETS = {
    *("learned", "former", "callers", "registered", "pending", "ringing", "dialling", "logins"),
    *("challenged", "wrong", "refused-calls", "shut", "failures", "failures-learned", "barred"),
    *("tried", "masked-refused", "bare", "challenges", "no-register", "unanswered"),
    # Buckets.
    *("learn", "phone", "callp", "calls", "repea", "loginp", "chall"),
    *("slogin", "plogin", "nlogin", "ulogin", "asked-register"),
}
TAUGHT_RULES = {
    *("connections.learned", "streams.learned", "streams.registered", "answers.learned"),
    *("scanner.learned", "scanner.caller", "identity.learned", "scanner.call"),
    *("aggregate.former", "aggregate.challenged", "streams.former"),
    *("media.learned", "scanner.texts"),
    *("rate.pending-register", "rate.pending-invite", "rate.bare"),
    *("stream.shut", "stream.registered", "stream.learned", "stream.callers"),
    *("stream-data.learned", "stream-data.callers", "stream-banned.registered"),
    *("stream-encrypted.shut", "stream-notes.other", "stream-notes.ringing"),
    *("stream-register.pending", "replies.ws", "replies.2xx-udp", "replies.4xx-udp"),
    *("stream.2xx", "replies.final-udp", "stream-request.bare"),
    *("replies.registers-udp", "replies.registers-tcp"),
}


def loaded(folder: Path, profile: str = "default", more: str = "") -> LoadedPolicy:
    file = folder / "policy.yaml"
    file.write_text(f"profile: {profile}\n{POLICY}{more}")
    return load(Request(file=file))


def without_searches(monkeypatch: pytest.MonkeyPatch, lack: str = LACKS[0]) -> NftBackend:
    monkeypatch.setattr(NftablesBackend, "text_searches", lambda _self: lack)
    return NftBackend()


def rule_id(rule: NftRule) -> str:
    return base_id(rule.comment.removeprefix("sipfw:").partition("#")[0])


def meaning(item: NftSet) -> str:
    """Name what both families' sets hold, or the limit whose buckets they are."""
    bucket = item.summary.removeprefix("buckets of ")
    return bucket if bucket != item.summary else item.name.rstrip("46")


@pytest.mark.parametrize("lack", LACKS)
def test_a_missing_string_match_is_told_and_takes_only_what_rests_on_it(
    lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruleset = compile_policy(loaded(tmp_path, "maximum"))
    possible, (warning,) = without_searches(monkeypatch, lack)._possible(ruleset)
    assert f"no text searches on this kernel ({lack})" in str(warning)
    whole, found = lower(ruleset), lower(possible)
    assert whole.texts
    assert found.texts == ()
    assert {chain.name[4:-1] for chain in whole.chains} >= TAUGHT_CHAINS
    kept = [chain for chain in whole.chains if chain.name[4:-1] not in TAUGHT_CHAINS]
    gone: set[str] = set()
    for bare, full in zip(found.chains, kept, strict=True):
        if full.base is not None:
            # The ports on which a hook leads on are those of the rules that are left.
            assert [rule_id(each) for each in bare.rules] == [rule_id(each) for each in full.rules]
            continue
        if full.name.startswith("SIP_BANNED"):
            (wall,) = bare.rules
            assert (rule_id(wall), wall.match, wall.action) == ("banned.drop", "", "drop")
            continue
        lost = [rule for rule in full.rules if rule not in bare.rules]
        assert bare.rules == tuple(rule for rule in full.rules if rule not in lost)
        gone |= {rule_id(each) for each in lost if "_text_" not in each.action}
    assert gone == TAUGHT_RULES
    assert {meaning(item) for item in whole.sets} - {meaning(item) for item in found.sets} == (
        TAUGHT_SETS
    )
    assert found.sets == tuple(item for item in whole.sets if meaning(item) not in TAUGHT_SETS)


@pytest.mark.parametrize("more", ["", "learning: {enabled: false}\n", "bans: {enabled: false}\n"])
@pytest.mark.parametrize("profile", shipped_profiles())
def test_what_is_left_without_searches_is_sound(profile: str, more: str, tmp_path: Path) -> None:
    bare = without_string_match(compile_policy(loaded(tmp_path, profile, more)))
    assert lint(bare) == []
    matches = [match for chain in bare.chains for rule in chain.rules for match in rule.matches]
    assert not [match for match in matches if isinstance(match, PayloadContains)]
    assert asked(list(bare.sets), list(bare.chains)) == list(bare.sets)


def test_without_searches_the_expectation_is_that_of_the_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruleset = compile_policy(loaded(tmp_path))
    bare = without_string_match(ruleset)
    chosen = without_searches(monkeypatch)
    assert chosen.expectation(ruleset) == expect(bare, lower(bare))
    (wall,) = next(c.rules for c in chosen.expectation(ruleset).chains if c.name == "SIP_BANNED")
    assert wall.summary == "banned source"


def test_a_check_returns_what_the_apply_would_warn_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[NftPlan] = []
    monkeypatch.setattr(NftablesBackend, "check", lambda _self, plan, _: checked.append(plan))
    ruleset = compile_policy(loaded(tmp_path))
    (warning,) = without_searches(monkeypatch).check(ruleset, Options())
    assert LACKS[0] in str(warning)
    assert checked == [lower(without_string_match(ruleset))]


SOURCE, OWN = ip_address("198.51.100.66"), ip_address("192.0.2.1")
DATAGRAM = Packet(SOURCE, OWN, IpProto.UDP, 5070, 5060, state=CtState.NEW)
SEGMENT = replace(
    DATAGRAM, protocol=IpProto.TCP, flags=frozenset({TcpFlag.ACK}), state=CtState.ESTABLISHED
)
LOGIN = b"REGISTER sip:a@192.0.2.1 SIP/2.0\r\nAuthorization: Digest\r\n\r\n"


def known(ruleset: Ruleset, *sets: str) -> LiveState:
    every = {item.name for item in ruleset.sets if item.dynamic}
    assert every >= set(sets)
    return LiveState({name: {SOURCE: 60} if name in sets else {} for name in every})


@pytest.mark.parametrize(
    "said", [b"401 Unauthorized", b"403 Forbidden", b"404 Not Found", b"407 Proxy", b"200 OK"]
)
@pytest.mark.parametrize("protocol", [IpProto.UDP, IpProto.TCP])
def test_no_answer_is_a_judgement(tmp_path: Path, said: bytes, protocol: IpProto) -> None:
    """A challenge and a wrong password look alike: every login would count as a failure."""
    bare = without_string_match(compile_policy(loaded(tmp_path)))
    payload = b"SIP/2.0 " + said + b"\r\nCSeq: 1 REGISTER\r\n\r\n"
    answer = Packet(OWN, SOURCE, protocol, 5060, 5070, out_interface="eth0", payload=payload)
    trace = evaluate(bare, answer, known(bare), assume=Limit.EXCEEDED, path=OUTGOING)
    assert trace.changes == ()
    assert not trace.dropped


@pytest.mark.parametrize("method", [b"REGISTER", b"INVITE", b"SUBSCRIBE", b"PRACK", b"MESSAGE"])
def test_no_request_of_a_stranger_goes_unlimited(tmp_path: Path, method: bytes) -> None:
    bare = without_string_match(compile_policy(loaded(tmp_path)))
    for packet, limits in (
        (DATAGRAM, ("aggregate.within", "rate.per-source", "rate.hashlimit", "rate.per-subnet")),
        (SEGMENT, ("stream.connection", "stream.source")),
    ):
        sent = replace(packet, payload=LOGIN.replace(b"REGISTER", method))
        trace = evaluate(bare, sent, known(bare))
        assert not trace.dropped
        met = {step.rule_id for step in trace.steps}
        assert met >= set(limits)
        for limit in set(limits) - {"aggregate.within"}:
            beyond = replace(known(bare), limits={limit: Limit.EXCEEDED})
            assert evaluate(bare, sent, beyond).dropped, limit


@pytest.mark.parametrize(
    ("packet", "sets", "rule"),
    [
        (DATAGRAM, ("banned",), "banned.drop"),
        (SEGMENT, ("banned-tcp",), "streams.drop"),
        # A connection that the switch has opened has none of our ports.
        (
            replace(SEGMENT, source_port=5070, destination_port=40001),
            ("banned-tcp", "outward"),
            "stream-banned.end",
        ),
    ],
)
def test_a_ban_is_a_wall(tmp_path: Path, packet: Packet, sets: tuple[str, ...], rule: str) -> None:
    bare = without_string_match(compile_policy(loaded(tmp_path)))
    trace = evaluate(bare, replace(packet, payload=LOGIN), known(bare, *sets))
    assert trace.dropped
    assert trace.decider is not None
    assert trace.decider.id == rule
