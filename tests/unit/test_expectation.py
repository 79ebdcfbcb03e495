"""What should be live, from a compiled policy to the state file and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.drift import drift
from sipfw.compare.expected import (
    Expectation,
    expect,
    from_json,
    to_json,
    with_lines,
    without_families,
)
from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.applied import Applied, read_applied, write_applied
from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.host.settings import ConntrackUsage
from sipfw.lower.iptables import lower
from sipfw.lower.xtables import Family
from sipfw.monitor.report import make_report
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wanted() -> Expectation:
    ruleset = compile_policy(load(Request(profile="retail", switch="asterisk")))
    return expect(ruleset, lower(ruleset))


def live_of(wanted: Expectation) -> Live:
    """Return the kernel state in which everything is as wanted."""

    def rule(rule_id: str, digest: str) -> LiveRule:
        return LiveRule(rule_id, digest, 3, 300, f"-A x {rule_id}#{digest}")

    return Live(
        tuple(
            LiveChain(c.family, c.table, c.name, tuple(rule(r.id, r.digest) for r in c.rules))
            for c in wanted.chains
        ),
        tuple(
            LiveJump(j.family, j.table, j.hook, rule(j.rule.id, j.rule.digest), ())
            for j in wanted.jumps
        ),
        tuple(
            LiveSetState(
                s.name, s.type, s.options, 0, None if s.elements is None else frozenset(s.elements)
            )
            for s in wanted.sets
        ),
    )


def test_what_is_wanted_is_no_drift_when_it_is_live(wanted: Expectation) -> None:
    assert drift(wanted, live_of(wanted)) == []
    assert drift(with_lines(wanted, live_of(wanted)), live_of(wanted)) == []


def test_a_setless_plan_needs_no_sets() -> None:
    ruleset = compile_policy(load(Request()))
    wanted = expect(ruleset, lower(ruleset, ipset=False))
    assert wanted.sets == ()
    assert drift(wanted, live_of(wanted)) == []


def test_every_rule_knows_its_meaning_and_its_origin(wanted: Expectation) -> None:
    for chain in wanted.chains:
        for rule in chain.rules:
            assert rule.summary
            assert ": " in rule.origin
    assert {jump.rule.origin for jump in wanted.jumps} == {"built-in: hook"}


def test_the_state_file_keeps_everything(wanted: Expectation, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert read_applied(layout) is None
    applied = Applied(with_lines(wanted, live_of(wanted)), "profile retail, policy.yaml")
    write_applied(layout, applied)
    assert read_applied(layout) == applied
    assert layout.applied.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"source": "x"}',
        '{"source": "x", "expectation": 5}',
        '{"source": "x", "expectation": {"format": 2}}',
        '{"source": "x", "expectation": {"format": 1}}',
        '{"source": "x", "expectation": {"format": 1, "chains": [1]}}',
        '{"source": "x", "expectation": {"format": 1, "chains": [{"family": "ipx"}]}}',
    ],
)
def test_a_damaged_state_file_says_what_to_do(text: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.applied.parent.mkdir(parents=True)
    layout.applied.write_text(text, encoding="utf-8")
    with pytest.raises(BackendError, match="apply again to write a new one"):
        read_applied(layout)


def test_a_state_file_that_is_not_text(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.applied.parent.mkdir(parents=True)
    layout.applied.write_bytes(b"\xff\xfe")
    with pytest.raises(BackendError, match="apply again"):
        read_applied(layout)


def test_another_format_is_refused(wanted: Expectation) -> None:
    with pytest.raises(ValueError, match="not a state file of this version"):
        from_json({**to_json(wanted), "format": 99})


def test_a_family_that_the_kernel_lacks_is_not_expected(wanted: Expectation) -> None:
    assert wanted.families() == [Family.IP, Family.IP6]
    only = without_families(wanted, [Family.IP6])
    assert only.families() == [Family.IP]
    assert {chain.family for chain in only.chains} == {Family.IP}


def test_lines_are_remembered_only_for_chains_that_are_whole(wanted: Expectation) -> None:
    live = live_of(wanted)
    short = replace(live.chains[0], rules=live.chains[0].rules[1:])
    filled = with_lines(wanted, replace(live, chains=(short, *live.chains[1:])))
    assert all(rule.line is None for rule in filled.chains[0].rules)
    assert all(rule.line is not None for rule in filled.chains[1].rules)


def test_a_report_adds_up_rules_that_lowering_split(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "trusted_peers: [{name: a, signalling: [192.0.2.1, 192.0.2.9, '2001:db8::1']}]\n",
        encoding="utf-8",
    )
    ruleset = compile_policy(load(Request(policy)))
    wanted = expect(ruleset, lower(ruleset, ipset=False))
    report = make_report(wanted, live_of(wanted), {}, ConntrackUsage(1, 2))
    [trusted] = [rule for rule in report.rules if rule.id == "trusted.accept"]
    counts = {family: count.packets for family, count in trusted.counts.items() if count}
    assert counts == {Family.IP: 6, Family.IP6: 3}
    assert trusted.packets == 9


def test_a_rule_without_a_counter_shows_no_figure(wanted: Expectation) -> None:
    live = live_of(wanted)
    first, *others = live.chains[0].rules
    bare = replace(first, packets=0, bytes=0, counted=False)
    chains = (replace(live.chains[0], rules=(bare, *others)), *live.chains[1:])
    report = make_report(wanted, replace(live, chains=chains), {}, ConntrackUsage(1, 2))
    place = live.chains[0].name, first.rule_id
    [shown] = [rule for rule in report.rules if (rule.chain, rule.id) == place]
    assert shown.counts[live.chains[0].family] is None
    assert report.drift == ()


def test_a_report_of_an_empty_kernel(wanted: Expectation) -> None:
    report = make_report(wanted, Live((), (), ()), {}, ConntrackUsage(None, None))
    assert {count for rule in report.rules for count in rule.counts.values()} == {None}
    assert {item.entries for item in report.sets} == {None}
    assert all(item.size for item in report.sets)
    assert [item.agrees for item in report.sysctls] == [False] * len(wanted.sysctls)
    assert report.drift
