"""How a packet moves through chains and hooks, and what the trace says about it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import (
    ConntrackState,
    CtState,
    Direction,
    InSet,
    Interface,
    L4Proto,
    Match,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    TimeUnit,
)
from sipfw.ruleset.model import AddressSet, Base, Chain, Hook, Layer, Priority, Ruleset, SetKind
from sipfw.ruleset.rule import (
    Accept,
    Action,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Family,
    Goto,
    Jump,
    NoTrack,
    Origin,
    Record,
    Return,
    Rule,
    UpdateSet,
)
from sipfw.ruleset.source import Door
from sipfw.simulate.evaluate import OUTGOING, evaluate
from sipfw.simulate.packet import Packet
from sipfw.simulate.state import Limit, LiveState
from sipfw.simulate.trace import Assumption, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.simulate.trace import Trace

SOURCE, OWN = IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1")
PACKET = Packet(
    SOURCE, OWN, IpProto.UDP, 5060, 5060, in_interface="eth0", payload=b"", state=CtState.NEW
)
ORIGIN = Origin("limits", "policy.yaml", 7)
NO = Protocol(L4Proto.TCP)
LIMIT = RateAbove("port", Rate(10, TimeUnit.SECOND), 20, PrefixLengths(32, 128))
RAW = Base(Hook.PREROUTING, Priority.RAW)
INPUT = Base(Hook.INPUT, Priority.FILTER)
SETS = tuple(
    AddressSet(name, SetKind.HOST, name, ORIGIN, timeout=60) for name in ("banned", "learned")
)


def rule(rule_id: str, action: Action, *matches: Match, family: Family | None = None) -> Rule:
    return Rule(rule_id, matches, action, "a rule", ORIGIN, family)


def chain(name: str, *rules: Rule, base: Base | None = None) -> Chain:
    return Chain(name, Layer.ENTRY, "a chain", rules, base.priority if base else RAW.priority, base)


def walk(*chains: Chain, packet: Packet = PACKET, live: LiveState | None = None) -> Trace:
    return evaluate(Ruleset(chains, SETS, ()), packet, live)


def asked(trace: Trace) -> list[str]:
    return [step.rule_id for step in trace.steps]


def test_a_drop_ends_the_walk() -> None:
    trace = walk(
        chain("A", rule("a", Drop()), rule("b", Done()), base=RAW),
        chain("I", rule("i", Accept()), base=INPUT),
    )
    assert (trace.verdict, asked(trace)) == (Verdict.DROPPED, ["a"])
    assert trace.decider is not None
    assert trace.decider.id == "a"


def test_done_goes_on_with_the_next_hook() -> None:
    trace = walk(
        chain("A", rule("a", Done()), rule("b", Drop()), base=RAW),
        chain("I", rule("i", Accept()), rule("j", Drop()), base=INPUT),
    )
    assert (trace.verdict, asked(trace)) == (Verdict.ACCEPTED, ["a", "i"])
    assert [item.id for item in trace.deciders] == ["a", "i"]


def test_accept_before_the_filter_is_no_delivery() -> None:
    trace = walk(chain("A", rule("a", Accept()), base=RAW), chain("I", rule("i", Drop(), NO)))
    assert trace.verdict is Verdict.PASSED


def test_without_an_opinion_the_other_rules_of_the_host_decide() -> None:
    trace = walk(
        chain("A", rule("a", Drop(), NO), base=RAW), chain("I", rule("i", Done()), base=INPUT)
    )
    assert trace.verdict is Verdict.PASSED
    assert [stage.decider is None for stage in trace.stages] == [True, False]
    assert walk(chain("A", rule("a", Drop(), NO), base=RAW)).decider is None


def test_hooks_come_in_the_order_of_the_kernel() -> None:
    trace = walk(
        chain("I", rule("i", Accept()), base=INPUT), chain("A", rule("a", Done()), base=RAW)
    )
    assert asked(trace) == ["a", "i"]


def test_a_jump_comes_back_and_a_goto_does_not() -> None:
    inner = chain("B", rule("b", Return()), rule("never", Drop()))
    jumping = chain("A", rule("a", Jump("B")), rule("after", Drop()), base=RAW)
    assert asked(walk(jumping, inner)) == ["a", "b", "after"]
    going = replace(jumping, rules=(rule("a", Goto("B")), rule("after", Drop())))
    assert asked(walk(going, inner)) == ["a", "b"]


def test_the_end_of_a_goto_below_a_jump_comes_back_to_the_jump() -> None:
    trace = walk(
        chain("A", rule("a", Jump("B")), rule("after", Drop()), base=RAW),
        chain("B", rule("b", Goto("C")), rule("never", Accept())),
        chain("C", rule("c", Drop(), NO)),
    )
    assert asked(trace) == ["a", "b", "c", "after"]


def test_done_below_a_jump_leaves_all_chains() -> None:
    trace = walk(
        chain("A", rule("a", Jump("B")), rule("after", Drop()), base=RAW),
        chain("B", rule("b", Done())),
    )
    assert trace.verdict is Verdict.PASSED


def test_a_circle_is_an_error_and_not_an_endless_walk() -> None:
    with pytest.raises(ValueError, match="chain A leads back to itself"):
        walk(chain("A", rule("a", Jump("B")), base=RAW), chain("B", rule("b", Goto("A"))))


def test_a_rule_of_the_other_family_is_not_there() -> None:
    trace = walk(
        chain(
            "A",
            rule("six", Drop(), family=Family.IP6),
            rule("four", Done(), family=Family.IP),
            base=RAW,
        )
    )
    assert asked(trace) == ["four"]


def test_the_trace_tells_why_and_from_which_line_of_the_policy() -> None:
    trace = walk(chain("A", rule("a", Drop(), Interface("eth0"), NO), rule("b", Drop()), base=RAW))
    first, second = trace.steps
    assert str(first) == "A a: no, is udp, not tcp"
    assert str(second) == "A b: yes, asks nothing"
    assert str(second.origin) == "policy.yaml:7: limits"
    both = walk(chain("A", rule("a", Drop(), Interface("eth0"), Protocol(L4Proto.UDP)), base=RAW))
    assert str(both.steps[0]) == "A a: yes, came in through eth0, is udp"


def test_an_assumption_is_recorded_with_its_rule() -> None:
    chains = (chain("A", rule("a", Drop(), LIMIT), base=RAW),)
    trace = walk(*chains)
    assert not trace.dropped
    assert [str(item) for item in trace.assumptions] == [
        "unless it exceeds 10/second with a burst of 20 (a)"
    ]
    assert evaluate(Ruleset(chains, SETS, ()), PACKET, assume=Limit.EXCEEDED).dropped
    known = walk(*chains, live=LiveState(limits={"a": Limit.EXCEEDED}))
    assert (known.dropped, known.assumptions) == (True, ())


def test_a_match_behind_one_that_fails_assumes_nothing() -> None:
    trace = walk(chain("A", rule("a", Drop(), NO, LIMIT), base=RAW))
    assert trace.assumptions == ()


def test_an_unknown_limit_is_no_assumption() -> None:
    with pytest.raises(ValueError, match="unknown"):
        evaluate(Ruleset((), (), ()), PACKET, assume=Limit.UNKNOWN)


def test_what_a_packet_writes_is_seen_by_its_later_rules() -> None:
    trace = walk(
        chain(
            "A",
            rule("add", UpdateSet("banned")),
            rule("once", AddOnce("learned")),
            rule("del", DeleteFromSet("learned")),
            rule("note", Record("recent")),
            rule("learned", Done(), InSet("learned")),
            rule("banned", Drop(), InSet("banned")),
            base=RAW,
        )
    )
    assert trace.dropped
    assert trace.assumptions == ()
    assert trace.changes == (
        "adds 198.51.100.7 to banned",
        "adds 198.51.100.7 to learned",
        "takes 198.51.100.7 out of learned",
        "notes 198.51.100.7 in recent",
    )


@pytest.mark.parametrize("kind", [SetKind.ENDPOINT, SetKind.TARGET])
def test_a_target_is_where_the_packet_goes(kind: SetKind) -> None:
    """An endpoint has the packet's own port, a target the port of the other end."""
    item = AddressSet("lost", kind, "lost", ORIGIN, timeout=60)
    asking = chain("A", rule("in", Drop(), InSet("lost")), base=RAW)
    packet = replace(PACKET, source_port=30000, destination_port=9000)
    held = LiveState({"lost": {(SOURCE, Door(L4Proto.UDP, 9000)): 60}})
    found = evaluate(Ruleset((asking,), (item,), ()), packet, held)
    assert found.dropped == (kind is SetKind.TARGET)


def test_a_write_about_an_unknown_address_is_named() -> None:
    writing = UpdateSet("banned", Direction.DESTINATION)
    trace = walk(chain("A", rule("a", writing), base=RAW), packet=replace(PACKET, destination=None))
    assert trace.changes == ("adds the destination, which is not known, to banned",)


def test_notrack_goes_on_and_is_seen_after_connection_tracking() -> None:
    untracked = ConntrackState((CtState.UNTRACKED,))
    trace = walk(
        chain("A", rule("a", NoTrack()), rule("b", Done()), base=RAW),
        chain("I", rule("i", Drop(), untracked), base=INPUT),
    )
    assert asked(trace) == ["a", "b", "i"]
    assert trace.dropped
    assert trace.assumptions == (), "the state is known although raw comes before tracking"


def compiled(tmp_path: Path, text: str = "profile: default\n") -> Ruleset:
    file = tmp_path / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return compile_policy(load(Request(file)))


def answered(payload: bytes) -> Packet:
    return Packet(OWN, SOURCE, IpProto.UDP, 5060, 5060, out_interface="eth0", payload=payload)


OK = b"SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n\r\n"


def after(*waiting: str) -> LiveState:
    """Return what is known of a source that waits for these answers, and of nobody else."""
    every = {
        *("pending", "logins", "bare", "ringing", "dialling", "learned", "registered", "banned"),
        "unanswered",
    }
    assert every >= set(waiting)
    return LiveState({name: {SOURCE: 30} if name in waiting else {} for name in every})


def adds(*sets: str) -> tuple[str, ...]:
    return tuple(f"adds {SOURCE} to {name}" for name in sets)


def written(trace: Trace) -> tuple[str, ...]:
    return tuple(each for each in trace.changes if each.startswith("adds"))


def test_the_answers_of_the_switch_teach(tmp_path: Path) -> None:
    ruleset = compiled(tmp_path)
    live = LiveState({"pending": {SOURCE: 30}, "learned": {}, "banned": {}, "failures": {}})
    trace = evaluate(ruleset, answered(OK), live, path=OUTGOING)
    assert not trace.dropped
    assert "adds 198.51.100.7 to learned" in trace.changes
    assert "takes 198.51.100.7 out of banned" in trace.changes
    nobody = replace(live, elements={**live.elements, "pending": {}})
    assert written(evaluate(ruleset, answered(OK), nobody, path=OUTGOING)) == ()


def test_a_refusal_bans_only_above_the_count(tmp_path: Path) -> None:
    ruleset = compiled(tmp_path)
    live = after("pending", "logins")
    refusal = answered(b"SIP/2.0 403 Forbidden\r\n")
    few = evaluate(ruleset, refusal, live, path=OUTGOING)
    assert written(few) == adds("wrong", "failures")
    assert {"wrong.shut", "failure.ban"} <= {item.rule_id for item in few.assumptions}
    many = replace(live, limits={"failure.ban": Limit.EXCEEDED})
    trace = evaluate(ruleset, refusal, many, path=OUTGOING)
    assert trace.verdict is Verdict.PASSED
    assert written(trace) == adds("wrong", "failures", "barred", "banned")
    # So many sources are banned already: the logins of this one are barred all the same.
    full = replace(many, common={"ban.source": Limit.EXCEEDED})
    assert written(evaluate(ruleset, refusal, full, path=OUTGOING)) == adds(
        "wrong", "failures", "barred"
    )


def test_only_streams_ban_streams(tmp_path: Path) -> None:
    refusal = replace(answered(b"SIP/2.0 403 Forbidden\r\n"), protocol=IpProto.TCP)
    many = replace(after("pending", "logins"), limits={"failure.ban": Limit.EXCEEDED})
    trace = evaluate(compiled(tmp_path), refusal, many, path=OUTGOING)
    assert written(trace) == adds("wrong", "failures", "barred", "banned-tcp", "banned")


CHALLENGE = b"SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest nonce=1\r\n"
NOT_FOUND = b"SIP/2.0 404 Not Found\r\nCSeq: 1 %s\r\n"


@pytest.mark.parametrize(
    ("said", "waiting", "against"),
    [
        # Who has asked nothing can be sent a forged one through a proxy.
        (CHALLENGE, (), ("challenged",)),
        (CHALLENGE, ("pending",), ("challenged",)),
        # A lamp key: a challenge is no failure, it only awaits its login.
        (CHALLENGE, ("bare",), ("challenged", "challenges", "unanswered")),
        # One request without a password explains one challenge, and no more.
        (CHALLENGE, ("bare", "logins"), ("challenged", "challenges", "unanswered")),
        (CHALLENGE, ("bare", "learned"), ("challenged", "challenges")),
        (CHALLENGE, ("pending", "logins"), ("challenged", "wrong", "failures")),
        (CHALLENGE, ("logins",), ("challenged", "wrong", "failures")),
        (CHALLENGE + b"stale=true\r\n", ("logins",), ("challenged",)),
        (CHALLENGE + b'Stale="TRUE"\r\n', ("logins",), ("challenged",)),
        # One good account buys its own port no more than another one.
        (CHALLENGE, ("logins", "learned"), ("challenged", "wrong", "failures-learned")),
        (NOT_FOUND % b"REGISTER", ("pending",), ("failures",)),
        (NOT_FOUND % b"INVITE", ("ringing",), ("failures",)),
        (NOT_FOUND % b"INVITE", ("ringing", "logins"), ()),
        (NOT_FOUND % b"INVITE", ("ringing", "learned"), ()),
        (NOT_FOUND % b"NOTIFY", ("pending", "ringing"), ()),
        (NOT_FOUND % b"INVITE", (), ()),
        (b"SIP/2.0 405 Not Allowed\r\nCSeq: 1 NOTIFY\r\n", ("logins",), ()),
    ],
)
@pytest.mark.parametrize("protocol", [IpProto.UDP, IpProto.TCP])
def test_what_counts_against_whom(
    tmp_path: Path,
    said: bytes,
    waiting: tuple[str, ...],
    against: tuple[str, ...],
    protocol: IpProto,
) -> None:
    trace = evaluate(
        compiled(tmp_path),
        replace(answered(said), protocol=protocol),
        after(*waiting),
        path=OUTGOING,
    )
    assert written(trace) == adds(*against)
    assert not trace.dropped


@pytest.mark.parametrize(
    ("method", "waiting", "lesson"),
    [
        (b"REGISTER", ("pending",), ("learned", "former", "registered")),
        (b"INVITE", ("ringing", "dialling"), ("learned", "former", "registered")),
        (b"INVITE", ("ringing",), ("callers",)),
        (b"OPTIONS", ("pending", "ringing"), ()),
        (b"REGISTER", ("ringing",), ()),
        (b"INVITE", ("pending",), ()),
        (b"BYE", ("learned",), ("learned", "former")),
        (b"SUBSCRIBE", ("registered",), ("registered", "learned", "former")),
    ],
)
def test_what_teaches(
    tmp_path: Path, method: bytes, waiting: tuple[str, ...], lesson: tuple[str, ...]
) -> None:
    said = b"SIP/2.0 200 OK\r\nCall-ID: 1 REGISTER-INVITE\r\nCSeq: 7 %s\r\n\r\n" % method
    trace = evaluate(compiled(tmp_path), answered(said), after(*waiting), path=OUTGOING)
    assert written(trace) == adds(*lesson)


def test_success_clears_no_failure(tmp_path: Path) -> None:
    """One good account would else buy any number of guesses."""
    trace = evaluate(compiled(tmp_path), answered(OK), after("pending"), path=OUTGOING)
    cleared = {each.split()[-1] for each in trace.changes if each.startswith("takes")}
    assert cleared == {"pending", "dialling", "banned", "bare", "logins"}


def test_media_kept_out_of_tracking_is_delivered(tmp_path: Path) -> None:
    ruleset = compiled(
        tmp_path,
        "admin: {networks: [192.0.2.0/28]}\nmedia: {ports: [10000-10100], notrack: true}\n",
    )
    rtp = replace(PACKET, destination_port=10002, payload=b"\x80")
    trace = evaluate(ruleset, rtp)
    assert trace.verdict is Verdict.PASSED
    assert trace.changes == ("keeps the packet out of connection tracking",)
    assert trace.decider is not None
    assert trace.decider.id == "host.media"


def test_a_policy_line_is_behind_every_step(tmp_path: Path) -> None:
    ruleset = compiled(tmp_path, "profile: default\nlimits:\n  hashlimit:\n    rate: 3/second\n")
    invite = replace(PACKET, payload=b"INVITE sip:a@192.0.2.1 SIP/2.0\r\n\r\n")
    trace = evaluate(ruleset, invite)
    assert trace.verdict is Verdict.PASSED
    steps = {step.rule_id: step for step in trace.steps}
    assert steps["rate.hashlimit"].origin.file.endswith("policy.yaml")
    assert steps["rate.hashlimit"].origin.line == 3
    assert Assumption("rate.hashlimit", "it exceeds 3/second with a burst of 20") in (
        trace.assumptions
    )
