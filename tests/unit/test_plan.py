"""A wanted firewall against hand-made live ones: what an apply would change, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.compare.changes import Action, Plan, Settings, SysctlChange
from sipfw.compare.compare import kept_in_order
from sipfw.compare.diff import make_plan
from sipfw.compare.expected import (
    Expectation,
    ExpectedChain,
    ExpectedJump,
    ExpectedRule,
    ExpectedSet,
    ExpectedSysctl,
)
from sipfw.compare.foreign import ForeignRule
from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
from sipfw.deploy.activate import NOTHING
from sipfw.deploy.plan import possible
from sipfw.lower.xtables import Family

_IDS = ("a", "b", "c", "d", "e")
_HEADER = ("family", "inet", "hashsize", "1024", "maxelem", "65536")
_MAX, _UDP = "net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_udp_timeout"


def _expected(rule_id: str, line: str | None = None) -> ExpectedRule:
    return ExpectedRule(rule_id, "00000000", f"rule {rule_id}", f"policy.yaml:3: {rule_id}", line)


def _rule(rule_id: str | None, digest: str = "00000000", line: str | None = None) -> LiveRule:
    ours = rule_id is not None
    return LiveRule(rule_id, digest if ours else None, 7, 70, line or f"-A CHAIN {rule_id}")


_CHAIN = ExpectedChain(Family.IP, "raw", "CHAIN", "entry", tuple(map(_expected, _IDS)))
_WANTED = Expectation(
    chains=(_CHAIN,),
    jumps=(ExpectedJump(Family.IP, "raw", "PREROUTING", _expected("hook")),),
    sets=(
        ExpectedSet("sipfw-t4", "hash:net", _HEADER, "peers", ("192.0.2.1", "192.0.2.2")),
        ExpectedSet("sipfw-b4", "hash:ip", (*_HEADER, "timeout", "60"), "banned", None),
    ),
    sysctls=(ExpectedSysctl(_MAX, 1000, "policy.yaml:9: conntrack.max"),),
)
_LIVE_CHAIN = LiveChain(Family.IP, "raw", "CHAIN", tuple(map(_rule, _IDS)))
_LIVE = Live(
    chains=(_LIVE_CHAIN,),
    jumps=(
        LiveJump(Family.IP, "raw", "PREROUTING", _rule("hook"), (ForeignRule("-A PREROUTING x"),)),
    ),
    sets=(
        LiveSetState("sipfw-t4", "hash:net", _HEADER, 2, frozenset({"192.0.2.1", "192.0.2.2"})),
        LiveSetState("sipfw-b4", "hash:ip", (*_HEADER, "timeout", "60"), 7, None),
    ),
)
_SETTINGS = Settings({_MAX: 1000}, {}, frozenset())


def _plan(
    live: Live = _LIVE,
    wanted: Expectation = _WANTED,
    *,
    before: Expectation = NOTHING,
    settings: Settings = _SETTINGS,
) -> Plan:
    origins = {"peers": "policy.yaml:5: trusted_peers"}
    return make_plan(wanted, live, settings, before=before, set_origins=origins)


def _with_rules(*rules: LiveRule) -> Live:
    return replace(_LIVE, chains=(replace(_LIVE_CHAIN, rules=rules),))


def _rules(plan: Plan) -> list[tuple[str, str]]:
    return [(item.action.value, item.id) for item in plan.rules]


def test_counters_bans_and_foreign_rules_before_ours_are_no_difference() -> None:
    plan = _plan()
    assert plan.same
    assert plan == Plan((), (), (), (), ())


def test_on_an_empty_host_everything_is_added() -> None:
    plan = _plan(Live((), (), ()), settings=replace(_SETTINGS, actual={_MAX: 5}))
    assert plan.fresh
    assert not plan.same
    assert _rules(plan) == [("add", rule_id) for rule_id in _IDS]
    assert [(item.action, item.name, item.rules) for item in plan.chains] == [
        (Action.ADD, "CHAIN", 5)
    ]
    assert [item.action for item in plan.jumps] == [Action.ADD]
    assert [(item.name, item.added) for item in plan.sets] == [
        ("sipfw-t4", ("192.0.2.1", "192.0.2.2")),
        ("sipfw-b4", ()),
    ]
    assert plan.sysctls == (SysctlChange(_MAX, 5, 1000, "policy.yaml:9: conntrack.max"),)


def test_a_rule_is_added_removed_or_changed_with_its_policy_line() -> None:
    gone = _expected("old")
    live = _with_rules(_rule("old"), _rule("a"), _rule("b", "ffffffff"), *map(_rule, "de"))
    plan = _plan(live, before=replace(_WANTED, chains=(replace(_CHAIN, rules=(gone,)),)))
    assert _rules(plan) == [("remove", "old"), ("change", "b"), ("add", "c")]
    assert [item.origin for item in plan.rules] == [
        f"policy.yaml:3: {rule_id}" for rule_id in ("old", "b", "c")
    ]
    assert [item.summary for item in plan.rules] == ["rule old", "rule b", "rule c"]
    assert {item.layer for item in plan.rules} == {"entry"}


def test_what_no_record_explains_is_shown_as_the_kernel_lists_it() -> None:
    (change,) = _plan(_with_rules(_rule("old"), *map(_rule, _IDS))).rules
    assert (change.action, change.id, change.detail) == (Action.REMOVE, "old", "-A CHAIN old")


def test_a_rule_edited_under_its_comment_is_changed() -> None:
    recorded = replace(
        _WANTED,
        chains=(replace(_CHAIN, rules=tuple(_expected(i, f"-A CHAIN {i}") for i in _IDS)),),
        jumps=(replace(_WANTED.jumps[0], rule=_expected("hook", "-A CHAIN hook")),),
    )
    assert _plan(before=recorded).same
    edited = [_rule(i, line="-A CHAIN b -j ACCEPT" if i == "b" else None) for i in _IDS]
    plan = _plan(_with_rules(*edited), before=recorded)
    assert [(i.action, i.id, i.detail) for i in plan.rules] == [
        (Action.CHANGE, "b", "edited since the apply: -A CHAIN b -j ACCEPT")
    ]
    jump = replace(_LIVE.jumps[0], rule=_rule("hook", line="-A PREROUTING -j ACCEPT"))
    (change,) = _plan(replace(_LIVE, jumps=(jump,)), before=recorded).jumps
    assert (change.action, "-j ACCEPT" in change.detail) == (Action.CHANGE, True)


def test_the_line_of_a_rule_with_another_content_is_not_compared() -> None:
    old = replace(_expected("b", "-A CHAIN another line"), digest="ffffffff")
    recorded = replace(_WANTED, chains=(replace(_CHAIN, rules=(old,)),))
    assert _plan(before=recorded).same


def test_only_the_rule_that_moved_is_moved() -> None:
    assert _rules(_plan(_with_rules(*map(_rule, "bcdea")))) == [("move", "a")]
    assert _rules(_plan(_with_rules(*map(_rule, "eabcd")))) == [("move", "e")]


def test_a_twin_goes_and_so_does_a_stranger_inside_our_chain() -> None:
    live = _with_rules(_rule(None, line="-A CHAIN -j ACCEPT"), *map(_rule, _IDS), _rule("a"))
    plan = _plan(live)
    assert _rules(plan) == [("remove", ""), ("remove", "a")]
    assert plan.rules[0].detail == "-A CHAIN -j ACCEPT"


def test_a_strangers_chain_of_our_name_is_not_listed() -> None:
    live = replace(_LIVE, chains=(replace(_LIVE_CHAIN, rules=(_rule(None), _rule(None))),))
    plan = _plan(live)
    assert _rules(plan) == [("add", rule_id) for rule_id in _IDS]
    assert plan.chains == ()


def test_chains_of_ours_that_are_not_wanted_go_with_their_rules() -> None:
    other = LiveChain(Family.IP6, "raw", "OLD", (_rule("x"), _rule("y")))
    recorded = ExpectedChain(Family.IP6, "raw", "OLD", "replies", (_expected("x"),))
    stranger = LiveChain(Family.IP, "raw", "THEIRS", (_rule(None),))
    plan = _plan(
        replace(_LIVE, chains=(*_LIVE.chains, other, stranger)),
        before=replace(_WANTED, chains=(recorded,)),
    )
    assert [(i.action, i.name, i.layer) for i in plan.chains] == [(Action.REMOVE, "OLD", "replies")]
    assert _rules(plan) == [("remove", "x"), ("remove", "y")]
    assert [item.layer for item in plan.rules] == ["replies", "replies"]


def test_jumps_are_added_changed_and_removed() -> None:
    (jump,) = _LIVE.jumps
    assert [i.action for i in _plan(replace(_LIVE, jumps=())).jumps] == [Action.ADD]
    changed = replace(jump, rule=_rule("hook", "ffffffff"))
    assert [i.action for i in _plan(replace(_LIVE, jumps=(changed,))).jumps] == [Action.CHANGE]
    twin = _plan(replace(_LIVE, jumps=(jump, jump))).jumps
    assert [(i.action, i.detail) for i in twin] == [(Action.REMOVE, "it stands twice")]
    elsewhere = replace(jump, hook="OUTPUT", rule=_rule("old", line="-A OUTPUT -j OLD"))
    extra = _plan(replace(_LIVE, jumps=(jump, elsewhere))).jumps
    assert [(i.action, i.hook, i.detail) for i in extra] == [
        (Action.REMOVE, "OUTPUT", "-A OUTPUT -j OLD")
    ]


def _set(live: Live) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    return [(i.action.value, i.name, i.header, i.added, i.removed) for i in _plan(live).sets]


def test_members_of_a_static_set_come_and_go() -> None:
    static, learned = _LIVE.sets
    other = replace(static, elements=frozenset({"192.0.2.2", "192.0.2.9"}))
    plan = _plan(replace(_LIVE, sets=(other, learned)))
    (change,) = plan.sets
    assert (change.added, change.removed) == (("192.0.2.1",), ("192.0.2.9",))
    assert change.origin == "policy.yaml:5: trusted_peers"


def test_what_a_set_grew_by_itself_is_no_difference_and_its_header_is() -> None:
    static, learned = _LIVE.sets
    grown = replace(learned, header=tuple("4096" if w == "1024" else w for w in learned.header))
    assert _set(replace(_LIVE, sets=(static, grown))) == []
    shorter = replace(learned, header=(*_HEADER, "timeout", "30", "counters"))
    assert _set(replace(_LIVE, sets=(static, shorter))) == [
        ("change", "sipfw-b4", ("counters yes -> none", "timeout 30 -> 60"), (), ())
    ]
    typed = replace(static, type="hash:ip")
    assert _set(replace(_LIVE, sets=(typed, learned))) == [
        ("change", "sipfw-t4", ("type hash:ip -> hash:net",), (), ())
    ]
    bare = replace(learned, header=())
    assert _set(replace(_LIVE, sets=(static, bare)))[0][0] == "change"


def test_sets_are_created_and_removed() -> None:
    static, learned = _LIVE.sets
    old = replace(static, name="sipfw-old4", elements=None)
    assert _set(replace(_LIVE, sets=(learned, old))) == [
        ("add", "sipfw-t4", (), ("192.0.2.1", "192.0.2.2"), ()),
        ("remove", "sipfw-old4", (), (), ()),
    ]


def test_settings_from_and_to_and_back_to_the_hosts_own() -> None:
    before = replace(_WANTED, sysctls=(ExpectedSysctl(_UDP, 77, "policy.yaml:8: x"),))
    settings = Settings({_MAX: 1, _UDP: 77}, {_UDP: 30}, frozenset())
    assert _plan(before=before, settings=settings).sysctls == (
        SysctlChange(_MAX, 1, 1000, "policy.yaml:9: conntrack.max"),
        SysctlChange(_UDP, 77, 30, "policy.yaml:8: x"),
    )


@pytest.mark.parametrize("actual", [1, None])
def test_a_setting_that_this_host_does_not_let_be_set_is_no_difference(actual: int | None) -> None:
    plan = _plan(settings=Settings({_MAX: actual}, {}, frozenset({_MAX})))
    assert plan.same
    assert plan.fixed == (SysctlChange(_MAX, actual, 1000, "policy.yaml:9: conntrack.max"),)


def test_a_family_that_the_last_apply_left_out_stays_out() -> None:
    six = ExpectedChain(Family.IP6, "raw", "CHAIN", "entry", _CHAIN.rules)
    jump = replace(_WANTED.jumps[0], family=Family.IP6)
    options = ("family", "inet6", "maxelem", "65536")
    both = replace(
        _WANTED,
        chains=(_CHAIN, six),
        jumps=(*_WANTED.jumps, jump),
        sets=(*_WANTED.sets, ExpectedSet("sipfw-t6", "hash:net", options, "peers", ())),
    )
    assert possible(both, _WANTED) == _WANTED
    assert possible(both, both) == both
    assert possible(both, NOTHING) == both


def test_a_dormant_table_is_a_difference() -> None:
    assert not _plan(replace(_LIVE, dormant=True)).same


@given(st.lists(st.sampled_from([*_IDS, "x", "y", None]), max_size=9))
def test_the_changes_lead_from_the_live_chain_to_the_wanted_one(ids: list[str | None]) -> None:
    plan = _plan(_with_rules(_rule("a"), *map(_rule, ids)))
    result: list[str] = []
    for rule_id in ["a", *ids]:
        if rule_id in _IDS and rule_id not in result:
            result.append(rule_id)
    removed = [item for item in plan.rules if item.action is Action.REMOVE]
    assert len(removed) == 1 + len(ids) - len(result)
    moved = {item.id for item in plan.rules if item.action is Action.MOVE}
    stays = [rule_id for rule_id in result if rule_id not in moved]
    assert stays == sorted(stays)
    added = {item.id for item in plan.rules if item.action is Action.ADD}
    assert {*stays, *moved, *added} == set(_IDS)


@given(st.permutations(range(7)))
def test_the_most_members_keep_their_order(order: list[int]) -> None:
    kept = kept_in_order(order)
    assert [n for n in order if n in kept] == sorted(kept)
    best = [1] * len(order)
    for i, value in enumerate(order):
        best[i] += max((best[j] for j in range(i) if order[j] < value), default=0)
    assert len(kept) == max(best)


def test_a_hundred_thousand_members_take_no_time() -> None:
    many = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(100_000)]
    static, learned = _LIVE.sets
    wanted = replace(_WANTED.sets[0], elements=(*many[10:], "192.0.2.1"))
    live = replace(_LIVE, sets=(replace(static, elements=frozenset(many)), learned))
    started = time.monotonic()
    (change,) = _plan(live, replace(_WANTED, sets=(wanted, _WANTED.sets[1]))).sets
    assert (len(change.added), len(change.removed)) == (1, 10)
    # A tenth of a second; a comparison of each with each would take minutes.
    assert time.monotonic() - started < 3
