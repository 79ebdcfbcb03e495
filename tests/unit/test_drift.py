"""Expectation against hand-made live states: each difference is named once, harmless ones never."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.compare.drift import DriftKind, drift
from sipfw.compare.expected import (
    Expectation,
    ExpectedChain,
    ExpectedJump,
    ExpectedRule,
    ExpectedSet,
)
from sipfw.compare.foreign import ForeignRule
from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
from sipfw.kernel.nft import foreign as nft
from sipfw.kernel.xtables import foreign as iptables
from sipfw.lower.xtables import Family

_IDS = ("a", "b", "c", "d", "e")
_HEADER = ("family", "inet", "hashsize", "1024", "maxelem", "65536")


def _expected_rule(rule_id: str) -> ExpectedRule:
    return ExpectedRule(rule_id, "00000000", f"rule {rule_id}", f"policy.yaml:3: {rule_id}")


def _live_rule(rule_id: str | None, digest: str | None = "00000000", packets: int = 0) -> LiveRule:
    name = "foreign" if rule_id is None else rule_id
    return LiveRule(rule_id, digest if rule_id else None, packets, 10 * packets, f"-A CHAIN {name}")


_WANTED = Expectation(
    chains=(ExpectedChain(Family.IP, "raw", "CHAIN", "entry", tuple(map(_expected_rule, _IDS))),),
    jumps=(ExpectedJump(Family.IP, "raw", "PREROUTING", _expected_rule("hook")),),
    sets=(
        ExpectedSet("sipfw-t4", "hash:net", _HEADER, "peers", ("192.0.2.1", "192.0.2.2")),
        ExpectedSet("sipfw-b4", "hash:ip", (*_HEADER, "timeout", "60"), "banned", None),
    ),
    sysctls=(),
)

_LIVE = Live(
    chains=(LiveChain(Family.IP, "raw", "CHAIN", tuple(map(_live_rule, _IDS))),),
    jumps=(LiveJump(Family.IP, "raw", "PREROUTING", _live_rule("hook"), ()),),
    sets=(
        LiveSetState("sipfw-t4", "hash:net", _HEADER, 2, frozenset({"192.0.2.1", "192.0.2.2"})),
        LiveSetState("sipfw-b4", "hash:ip", (*_HEADER, "timeout", "60"), 7, None),
    ),
)


def _found(live: Live, wanted: Expectation = _WANTED) -> list[tuple[str, str, str]]:
    return [(item.kind.value, item.what, item.where) for item in drift(wanted, live)]


def _with_rules(*rules: LiveRule) -> Live:
    return replace(_LIVE, chains=(replace(_LIVE.chains[0], rules=rules),))


def _in_order(ids: str) -> Live:
    return _with_rules(*map(_live_rule, ids))


def _with_jumps(*jumps: LiveJump) -> Live:
    return replace(_LIVE, jumps=jumps)


def _before(*lines: str) -> Live:
    return _with_jumps(replace(_LIVE.jumps[0], before=tuple(map(_read, lines))))


def _read(line: str) -> ForeignRule:
    return nft.foreign_rule(line) if line.startswith("[") else iptables.foreign_rule(line, ())


def test_what_was_applied_is_no_drift() -> None:
    assert drift(_WANTED, _LIVE) == []


def test_counters_and_learned_entries_are_no_drift() -> None:
    busy = _with_rules(*(_live_rule(rule_id, packets=9) for rule_id in _IDS))
    learned = replace(_LIVE.sets[1], entries=60_000)
    assert drift(_WANTED, replace(busy, sets=(_LIVE.sets[0], learned))) == []


def test_what_the_kernel_does_to_a_header_is_no_drift() -> None:
    grown = ("family", "inet", "hashsize", "16384", "maxelem", "65536", "bucketsize", "12")
    sets = (replace(_LIVE.sets[0], header=grown), _LIVE.sets[1])
    assert drift(_WANTED, replace(_LIVE, sets=sets)) == []


def test_foreign_chains_are_no_drift() -> None:
    foreign = LiveChain(Family.IP, "filter", "DOCKER", (_live_rule(None),))
    assert drift(_WANTED, replace(_LIVE, chains=(*_LIVE.chains, foreign))) == []


@pytest.mark.parametrize(
    ("ids", "differences"),
    [
        ("bcde", [("missing", "a")]),
        ("abde", [("missing", "c")]),
        ("", [("missing", rule_id) for rule_id in _IDS]),
        ("bacde", [("moved", "b")]),
        ("bcdea", [("moved", "a")]),
        ("eabcd", [("moved", "e")]),
        ("acbde", [("moved", "c")]),
        ("abcdee", [("extra", "e")]),
        ("bade", [("missing", "c"), ("moved", "b")]),
    ],
)
def test_missing_and_moved_rules(ids: str, differences: list[tuple[str, str]]) -> None:
    expected = [(kind, "rule", f"IPv4 raw CHAIN {rule_id}") for kind, rule_id in differences]
    found = _found(_in_order(ids))
    if ids in {"bacde", "acbde", "bade"}:
        # Of two neighbours that changed places either one may be called the moved one.
        assert [item[0] for item in found] == [item[0] for item in expected]
    else:
        assert found == expected


@given(st.permutations(_IDS))
def test_as_few_rules_as_possible_are_called_moved(order: list[str]) -> None:
    moved = {where[-1] for kind, _, where in _found(_in_order("".join(order))) if kind == "moved"}
    stayed = [rule_id for rule_id in order if rule_id not in moved]
    assert stayed == sorted(stayed)
    longest = max(
        sum(1 for _ in kept)
        for mask in range(1, 2 ** len(order))
        if (kept := [x for i, x in enumerate(order) if mask >> i & 1]) == sorted(kept)
    )
    assert len(stayed) == longest


def test_a_rule_that_was_edited_under_its_comment() -> None:
    rules = list(map(_live_rule, _IDS))
    rules[2] = _live_rule("c", digest="ffffffff")
    assert _found(_with_rules(*rules)) == [("changed", "rule", "IPv4 raw CHAIN c")]


def test_a_rule_whose_listing_changed_although_its_comment_did_not() -> None:
    chain = _WANTED.chains[0]
    lines = tuple(replace(rule, line=f"-A CHAIN {rule.id}") for rule in chain.rules)
    wanted = replace(_WANTED, chains=(replace(chain, rules=lines),))
    assert drift(wanted, _LIVE) == []
    rules = list(map(_live_rule, _IDS))
    rules[2] = replace(rules[2], line="-A CHAIN c -s 192.0.2.66")
    assert _found(_with_rules(*rules), wanted) == [("changed", "rule", "IPv4 raw CHAIN c")]


def test_a_foreign_rule_in_our_chain() -> None:
    rules = list(map(_live_rule, _IDS))
    rules.insert(1, _live_rule(None))
    [found] = drift(_WANTED, _with_rules(*rules))
    assert str(found) == "rule IPv4 raw CHAIN: extra, -A CHAIN foreign"


def test_a_rule_of_ours_from_another_policy() -> None:
    rules = (*map(_live_rule, _IDS), _live_rule("old"))
    assert _found(_with_rules(*rules)) == [("extra", "rule", "IPv4 raw CHAIN old")]


def test_a_missing_chain_is_named_once() -> None:
    [found] = drift(_WANTED, replace(_LIVE, chains=()))
    assert str(found) == "chain IPv4 raw CHAIN: missing (policy.yaml:3: a)"


def test_a_chain_in_the_other_family_is_another_chain() -> None:
    moved = replace(_LIVE.chains[0], family=Family.IP6)
    assert _found(replace(_LIVE, chains=(moved,))) == [
        ("missing", "chain", "IPv4 raw CHAIN"),
        ("extra", "chain", "IPv6 raw CHAIN"),
    ]


def test_a_chain_of_ours_that_should_be_gone() -> None:
    old = LiveChain(Family.IP, "raw", "SIP_OLD", (_live_rule("x"),))
    assert _found(replace(_LIVE, chains=(*_LIVE.chains, old))) == [
        ("extra", "chain", "IPv4 raw SIP_OLD")
    ]


def test_without_its_jump_no_packet_comes() -> None:
    assert _found(_with_jumps()) == [("missing", "jump", "IPv4 raw PREROUTING")]


def test_a_jump_that_was_edited() -> None:
    edited = replace(_LIVE.jumps[0], rule=_live_rule("hook", digest="ffffffff"))
    assert _found(_with_jumps(edited)) == [("changed", "jump", "IPv4 raw PREROUTING")]


def test_a_jump_that_stands_twice() -> None:
    again = replace(_LIVE.jumps[0], before=(ForeignRule(_LIVE.jumps[0].rule.line),))
    assert _found(_with_jumps(_LIVE.jumps[0], again)) == [("extra", "jump", "IPv4 raw PREROUTING")]


def test_a_twin_of_a_jump_is_named_although_it_is_equal() -> None:
    twins = (_LIVE.jumps[0], replace(_LIVE.jumps[0]))
    assert twins[0] == twins[1]
    assert _found(_with_jumps(*twins)) == [("extra", "jump", "IPv4 raw PREROUTING")]


def test_each_family_has_a_jump_of_its_own_in_one_hook() -> None:
    jumps = [
        ExpectedJump(family, "sipfw", "raw_prerouting", _expected_rule(f"hook/{number}"))
        for number, family in enumerate(Family, start=1)
    ]
    wanted = replace(_WANTED, jumps=tuple(jumps))
    live = [
        LiveJump(jump.family, jump.table, jump.hook, _live_rule(jump.rule.id), ()) for jump in jumps
    ]
    assert drift(wanted, _with_jumps(*live)) == []
    for number, place in enumerate(("IPv4 sipfw raw_prerouting", "IPv6 sipfw raw_prerouting")):
        rest = [each for each in live if each is not live[number]]
        assert _found(_with_jumps(*rest), wanted) == [("missing", "jump", place)]
        edited = replace(live[number], rule=_live_rule(jumps[number].rule.id, digest="ffffffff"))
        assert _found(_with_jumps(*rest, edited), wanted) == [("changed", "jump", place)]
        gone = replace(live[number], hook="raw_prerouting (elsewhere)")
        assert _found(_with_jumps(*rest, gone), wanted) == [
            ("missing", "jump", place),
            ("extra", "jump", f"{place} (elsewhere)"),
        ]


def test_a_table_that_sleeps_is_named_first() -> None:
    found = drift(_WANTED, replace(_with_jumps(), dormant=True))
    assert [str(each) for each in found] == [
        "table inet sipfw: changed, dormant: no packet reaches sipfw",
        "jump IPv4 raw PREROUTING: missing, no packet reaches sipfw here",
    ]


def test_a_jump_in_a_hook_of_its_own() -> None:
    stray = replace(_LIVE.jumps[0], hook="OUTPUT")
    assert _found(_with_jumps(_LIVE.jumps[0], stray)) == [("extra", "jump", "IPv4 raw OUTPUT")]


@pytest.mark.parametrize(
    "line",
    [
        "-A PREROUTING -j DROP",
        "-A PREROUTING -j SOME_CHAIN",
        "-A PREROUTING -i lo -j ACCEPT",
        "-A PREROUTING -p tcp -j LOG",
        "-A PREROUTING",
        '[{"counter":null},{"drop":null}]',
        '[{"counter":null},{"jump":{"target":"accept"}}]',
    ],
)
def test_what_may_stand_before_our_jump(line: str) -> None:
    assert drift(_WANTED, _before(line)) == []


@pytest.mark.parametrize(
    "line",
    [
        "-A PREROUTING -j ACCEPT",
        "-A PREROUTING -s 192.0.2.66/32 -j ACCEPT",
        "-A PREROUTING -j RETURN",
        "-A PREROUTING -i lo0 -j ACCEPT",
        "-A PREROUTING -o lo -j ACCEPT",
        pytest.param(
            "-A PREROUTING ! -i lo -j ACCEPT",
        ),
        '[{"match":{"left":1,"op":"==","right":2}},{"accept":null}]',
        '[{"counter":null},{"return":null}]',
    ],
)
def test_a_rule_before_our_jump_that_lets_packets_past(line: str) -> None:
    [found] = drift(_WANTED, _before("-A PREROUTING -j DROP", line))
    assert (found.kind, found.what) == (DriftKind.MOVED, "jump")
    assert found.detail == f"a rule before it lets packets pass: {line}"


def _with_set(**changes: object) -> Live:
    return replace(_LIVE, sets=(replace(_LIVE.sets[0], **changes), _LIVE.sets[1]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("live", "text"),
    [
        (replace(_LIVE, sets=_LIVE.sets[1:]), "set sipfw-t4: missing, peers"),
        (
            replace(_LIVE, sets=(*_LIVE.sets, replace(_LIVE.sets[0], name="sipfw-old4"))),
            "set sipfw-old4: extra",
        ),
        (_with_set(type="hash:ip"), "set sipfw-t4: changed, type hash:ip, not hash:net"),
        (
            _with_set(header=("family", "inet", "maxelem", "10")),
            "set sipfw-t4: changed, maxelem 10, not 65536",
        ),
        (
            _with_set(header=(*_HEADER, "timeout", "60")),
            "set sipfw-t4: changed, timeout 60, not absent",
        ),
        (_with_set(header=(*_HEADER, "counters")), "set sipfw-t4: changed, counters , not absent"),
        (
            _with_set(elements=frozenset({"192.0.2.1"})),
            "set element sipfw-t4 192.0.2.2: missing",
        ),
        (
            _with_set(elements=frozenset({"192.0.2.1", "192.0.2.2", "192.0.2.66"})),
            "set element sipfw-t4 192.0.2.66: extra",
        ),
    ],
)
def test_sets(live: Live, text: str) -> None:
    assert [str(item) for item in drift(_WANTED, live)] == [text]


def test_everything_gone_is_said_in_packet_order() -> None:
    assert [what for _, what, _ in _found(Live((), (), ()))] == ["chain", "jump", "set", "set"]
