"""Differences around our rules: policies, ways in from outside, twins; and records of old."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sipfw.compare.deep import drift_by_listing as compare
from sipfw.compare.deep import with_recorded
from sipfw.compare.drift import drift
from sipfw.compare.expected import (
    Expectation,
    ExpectedChain,
    ExpectedJump,
    ExpectedPolicy,
    ExpectedRule,
    ExpectedSet,
    from_json,
    to_json,
    with_lines,
)
from sipfw.compare.live import (
    Live,
    LiveChain,
    LiveJump,
    LivePolicy,
    LiveRule,
    LiveSetState,
)
from sipfw.kernel.xtables.foreign import foreign_rule
from sipfw.lower.naming import search_words
from sipfw.lower.xtables import Family

RULE = ExpectedRule("a", "00000000", "a rule", "policy.yaml:3: a", line="-A CHAIN a")
HOOK = ExpectedRule("hook", "00000000", "way in", "built-in: hook")
CHAIN = ExpectedChain(Family.IP, "filter", "CHAIN", "host", (RULE,))
LIVE_RULE = LiveRule("a", "00000000", 0, 0, "-A CHAIN a")
LIVE_CHAIN = LiveChain(Family.IP, "filter", "CHAIN", (LIVE_RULE,))
LIVE_HOOK = LiveRule("hook", "00000000", 0, 0, "-A INPUT -j CHAIN")
FOREIGN = LiveRule(None, None, 0, 0, "-A THEIRS -j CHAIN")


def wanted(action: str = "pass", table: str = "filter", policy: str = "DROP") -> Expectation:
    return Expectation(
        (replace(CHAIN, rules=(replace(RULE, action=action),)),),
        (ExpectedJump(Family.IP, table, "INPUT", HOOK),),
        (),
        (),
        (ExpectedPolicy(Family.IP, table, "INPUT", policy),),
    )


def live(table: str = "filter", policy: str = "DROP", before: tuple[str, ...] = ()) -> Live:
    read = tuple(foreign_rule(line, ()) for line in before)
    return Live(
        (LIVE_CHAIN,),
        (LiveJump(Family.IP, table, "INPUT", LIVE_HOOK, read),),
        (),
        policies=(LivePolicy(Family.IP, table, "INPUT", policy),),
    )


def said(expectation: Expectation, found: Live) -> list[str]:
    return [str(item) for item in drift(expectation, found)]


@pytest.mark.parametrize(
    ("action", "table", "before", "now", "named"),
    [
        ("pass", "filter", "DROP", "ACCEPT", True),
        ("drop", "filter", "DROP", "ACCEPT", False),
        ("", "filter", "DROP", "ACCEPT", False),
        ("pass", "filter", "ACCEPT", "DROP", False),
        ("pass", "raw", "ACCEPT", "DROP", True),
        ("drop", "raw", "DROP", "ACCEPT", True),
        ("pass", "filter", "DROP", "DROP", False),
    ],
)
def test_a_policy_that_was_changed(
    action: str, table: str, before: str, now: str, *, named: bool
) -> None:
    found = said(wanted(action, table, before), live(table, now))
    text = f"chain IPv4 {table} INPUT: changed, policy {now}, which was {before} at the apply"
    assert found == ([text] if named else [])


def test_a_table_that_is_gone_has_no_policy() -> None:
    assert said(wanted(), replace(live(), policies=())) == []


@pytest.mark.parametrize(("action", "named"), [("drop", True), ("", True), ("pass", False)])
def test_a_way_past_a_jump_matters_where_we_drop(action: str, *, named: bool) -> None:
    found = said(wanted(action), live(before=("-A INPUT -s 192.0.2.6/32 -j ACCEPT",)))
    assert bool(found) is named


def test_a_way_in_that_is_not_ours() -> None:
    stray = LiveJump(Family.IP, "filter", "THEIRS", FOREIGN, ())
    assert said(wanted(), replace(live(), strays=(stray,))) == [
        "jump IPv4 filter THEIRS: extra, not made by sipfw, so it stays: -A THEIRS -j CHAIN"
    ]


def test_a_chain_in_our_own_table_that_no_plan_makes() -> None:
    found = replace(live(), strangers=("wall", "INPUT"))
    assert said(wanted(), found) == ["chain inet sipfw wall: extra"]


def test_our_rule_in_a_foreign_chain() -> None:
    theirs = LiveChain(Family.IP, "filter", "THEIRS", (FOREIGN, LIVE_RULE))
    assert said(wanted(), replace(live(), chains=(LIVE_CHAIN, theirs))) == [
        "rule IPv4 filter THEIRS a: extra, -A CHAIN a"
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_of_twins_the_one_that_is_as_it_was_is_the_real_one(order: int) -> None:
    twins = (LIVE_RULE, replace(LIVE_RULE, line="-A CHAIN -j ACCEPT"))[::order]
    found = replace(live(), chains=(replace(LIVE_CHAIN, rules=twins),))
    assert said(wanted(), found) == [
        "rule IPv4 filter CHAIN a: extra, stands twice: -A CHAIN -j ACCEPT (policy.yaml:3: a)"
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_a_namesake_hides_nothing(order: int) -> None:
    chains = (LIVE_CHAIN, replace(LIVE_CHAIN, rules=()))[::order]
    assert said(wanted(), replace(live(), chains=chains)) == [
        "chain IPv4 filter CHAIN: extra, one of the same name"
    ]


@pytest.mark.parametrize(
    ("expected", "search", "named"),
    [
        ("'a' from byte 28", "'a' from byte 28", False),
        ("'a' from byte 28", "'b' from byte 28", True),
        ("'a' from byte 28", None, False),
        (None, "'b' from byte 28", False),
    ],
)
def test_a_search_for_another_text(
    expected: str | None, search: str | None, *, named: bool
) -> None:
    rules = (replace(RULE, action="pass", search=expected),)
    expectation = replace(wanted(), chains=(replace(CHAIN, rules=rules),))
    found = replace(LIVE_CHAIN, rules=(replace(LIVE_RULE, search=search),))
    text = f"changed, searches {search}, not {expected} (policy.yaml:3: a)"
    assert said(expectation, replace(live(), chains=(found,))) == (
        [f"rule IPv4 filter CHAIN a: {text}"] if named else []
    )


def test_a_search_in_words() -> None:
    assert search_words(b" INVITE\r\n", 28) == r"' INVITE\r\n' from byte 28"


def test_policies_are_remembered_with_the_listing() -> None:
    filled = with_lines(replace(wanted(), policies=()), live(policy="ACCEPT"))
    assert filled.policies == (ExpectedPolicy(Family.IP, "filter", "INPUT", "ACCEPT"),)
    assert from_json(json.loads(json.dumps(to_json(filled)))) == filled


def test_a_record_of_an_older_version() -> None:
    sets = (ExpectedSet("s", "hash:ip", (), "a set", None),)
    data = to_json(replace(wanted(""), policies=(), sets=sets))
    del data["policies"], data["sets"][0]["origin"]
    for rule in (data["chains"][0]["rules"][0], data["jumps"][0]["rule"]):
        del rule["search"], rule["action"]
    assert from_json(json.loads(json.dumps(data))) == replace(wanted(""), policies=(), sets=sets)


BIG = ("family", "inet", "maxelem", "200000")
SMALL = ("family", "inet", "maxelem", "65536")


def test_deep_takes_from_the_record_what_follows_names_and_lists() -> None:
    kept = ExpectedSet("kept", "hash:net", SMALL, "peers", ("192.0.2.1",))
    list_ = ExpectedSet("list", "hash:net", SMALL, "a list", ())
    recorded = (
        replace(kept, elements=("192.0.2.66",)),
        replace(list_, options=BIG, elements=("192.0.2.9",)),
    )
    loaded = replace(wanted(policy="ACCEPT"), sets=(kept, list_))
    made = with_recorded(loaded, replace(wanted(), sets=recorded), frozenset({"list"}))
    assert made.sets == (kept, recorded[1])
    assert made.policies == wanted().policies


def test_deep_names_what_a_definition_says_more_or_less() -> None:
    expected = ExpectedSet("s", "hash:ip", SMALL, "a set", None, "policy.yaml:9: bans")
    state = LiveSetState("s", "hash:ip", SMALL, 0, None)
    expectation = replace(wanted(), sets=(expected,))
    found = replace(live(), sets=(state,))
    meant = {"s": ("family inet", "dynamic")}
    assert compare(expectation, meant, found, meant) == []
    [named] = compare(expectation, meant, found, {"s": ("family inet", "comment")})
    assert str(named) == "set s: changed, comment, not dynamic (policy.yaml:9: bans)"
    # What drift has named already is not named twice.
    grown = replace(found, sets=(replace(state, header=BIG),))
    [named] = compare(expectation, meant, grown, {"s": ("family inet", "comment")})
    assert named.detail == "maxelem 200000, not 65536"
