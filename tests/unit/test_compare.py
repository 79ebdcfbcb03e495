"""The one comparison, and that its views agree on what is as it should be."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.compare.changes import Settings
from sipfw.compare.compare import (
    compare,
    differing,
    marks_of,
    not_as_wanted,
    without_counters,
)
from sipfw.compare.diff import make_plan
from sipfw.compare.drift import drift
from sipfw.compare.expected import (
    Expectation,
    ExpectedChain,
    ExpectedJump,
    ExpectedRule,
    ExpectedSet,
)
from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
from sipfw.compare.sets import compare_elements, pair_sets
from sipfw.errors import BackendError
from sipfw.ruleset.rule import Family

_IDS = ("a", "b", "c", "d")
_PLACE = (Family.IP, "raw", "CHAIN")
_HOOK = (Family.IP, "raw", "PREROUTING")


def _wanted(rule_id: str) -> ExpectedRule:
    return ExpectedRule(rule_id, "1", rule_id, "policy.yaml:3: a", f"-A {rule_id}", "drop")


def _rule(rule_id: str | None, digest: str = "1", packets: int = 0) -> LiveRule:
    mark = None if rule_id is None else digest
    return LiveRule(rule_id, mark, packets, packets, f"-A {rule_id}")


_SET = ExpectedSet("s", "hash:net", ("maxelem", "8"), "a set", ("a", "b"), of="s")
_EXPECTED = Expectation(
    (ExpectedChain(*_PLACE, "entry", tuple(map(_wanted, _IDS))),),
    (ExpectedJump(*_HOOK, _wanted("hook")),),
    (_SET,),
    (),
)


def _live(
    rules: tuple[LiveRule, ...] = tuple(map(_rule, _IDS)),
    jumps: tuple[LiveRule, ...] = (_rule("hook"),),
    elements: frozenset[str] = frozenset({"a", "b"}),
) -> Live:
    return Live(
        (LiveChain(*_PLACE, rules),),
        tuple(LiveJump(*_HOOK, rule, ()) for rule in jumps),
        (LiveSetState("s", "hash:net", ("maxelem", "8"), 2, elements),),
    )


def test_each_rule_has_its_partner() -> None:
    found = compare(_EXPECTED, _live())
    (chain,), (jump,), (pair,) = found.chains, found.jumps, found.sets
    assert [rule.real and rule.real.rule_id for rule in chain.rules] == list(_IDS)
    assert not chain.foreign
    assert not chain.unknown
    assert not chain.moved
    assert jump.real == jump.here[0]
    assert pair.elements.same
    more = (found.more_chains, found.more_jumps, found.more_sets, found.unmatched)
    assert more == ((), (), (), ())


def test_what_stands_twice_is_beside_the_real_one() -> None:
    edited, real = _rule("a", "2"), _rule("a")
    rules = (edited, *map(_rule, _IDS[1:]), real, _rule(None), _rule("other"))
    (chain,) = compare(_EXPECTED, _live(rules)).chains
    pair = chain.rules[0]
    assert (pair.first, pair.real, pair.twins) == (edited, real, (edited,))
    assert chain.foreign == (_rule(None),)
    assert chain.unknown == (_rule("other"),)


def test_twins_that_have_counted_as_much_are_two() -> None:
    (chain,) = compare(_EXPECTED, _live((_rule("a"), _rule("a")))).chains
    assert len(chain.rules[0].twins) == 1


def test_the_one_that_was_taken_elsewhere_is_named_and_none_that_shifted() -> None:
    (chain,) = compare(_EXPECTED, _live(tuple(map(_rule, ("b", "c", "d", "a"))))).chains
    assert chain.moved == ("a",)
    assert chain.shifted == {"a"}


def test_of_namesakes_the_one_that_agrees_is_meant() -> None:
    live = _live()
    other = LiveChain(*_PLACE, (_rule("a", "9"),))
    both = Live((other, *live.chains), live.jumps, live.sets)
    (chain,) = compare(_EXPECTED, both).chains
    assert (chain.found, chain.namesakes) == (live.chains[0], (other,))


def test_sets_that_nobody_could_read_are_not_called_missing() -> None:
    with pytest.raises(BackendError, match="cannot be read: no right"):
        compare(_EXPECTED, Live((), (), (), silence="no right"))


@given(
    st.lists(st.builds(_rule, st.sampled_from([None, *_IDS, "x"]), st.sampled_from("112"))),
    st.lists(st.builds(_rule, st.sampled_from(["hook", "x"]), st.sampled_from("112")), max_size=2),
    st.frozensets(st.sampled_from("abc")),
)
def test_the_views_agree_on_what_is_the_same(
    rules: list[LiveRule], jumps: list[LiveRule], elements: frozenset[str]
) -> None:
    for live in (_live(tuple(rules), tuple(jumps), elements), _live(jumps=tuple(jumps))):
        plan = make_plan(
            _EXPECTED, live, Settings({}, {}, frozenset()), before=_EXPECTED, set_origins={}
        )
        assert plan.same is (drift(_EXPECTED, live) == [])


@given(st.lists(st.builds(_rule, st.sampled_from(_IDS), st.sampled_from("112")), max_size=6))
def test_a_read_back_finds_what_the_comparison_finds(rules: list[LiveRule]) -> None:
    marks = [(rule.rule_id, rule.digest) for rule in rules]
    meant = [(rule.id, rule.digest) for rule in _EXPECTED.chains[0].rules]
    said = not_as_wanted({"CHAIN": meant}, {"CHAIN": marks})
    assert (said == []) is (drift(_EXPECTED, _live(tuple(rules))) == [])


def test_a_read_back_names_what_is_wrong_in_the_wanted_order() -> None:
    wanted = {"z": ["1"], "a": ["1"], "m": ["1"]}
    found = {"a": ["1"], "m": ["2"], "more": ["1"]}
    assert not_as_wanted(wanted, found) == ["z", "m"]
    assert differing(wanted, found) == ["m", "more", "z"]
    assert differing(wanted, dict(wanted)) == []


def test_marks_are_counted_with_those_of_the_jumps() -> None:
    assert marks_of(_EXPECTED) == Counter(f"{name}#1" for name in (*_IDS, "hook"))


def test_counters_are_no_change() -> None:
    counted = _live(tuple(_rule(name, packets=5) for name in _IDS))
    assert without_counters(counted) == without_counters(_live())
    assert without_counters(_live((_rule("a"),))) != without_counters(_live())


def test_elements_on_both_sides() -> None:
    found = compare_elements(("b", "a", "a"), {"c", "b"})
    assert (found.missing, found.extra, found.same) == (("a",), ("c",), False)
    assert compare_elements(("a", "a"), ["a"]).same


def test_a_header_is_compared_by_what_it_does() -> None:
    def header(wanted: str, found: str) -> list[tuple[str, str | None, str | None]]:
        expected = ExpectedSet("s", "hash:ip", tuple(wanted.split()), "s", None)
        live = LiveSetState("s", "hash:ip", tuple(found.split()), 0, None)
        (pair,), more = pair_sets([expected], [live])
        assert not more
        return [(item.name, item.wanted, item.found) for item in pair.header]

    assert header("hashsize 8 maxelem 4", "maxelem 4 hashsize 16 bucketsize 12") == []
    assert header("timeout 60 counters", "timeout 30 netmask 64") == [
        ("counters", "", None),
        ("netmask", None, "64"),
        ("timeout", "60", "30"),
    ]
