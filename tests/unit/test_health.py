"""Layer sums, health and the choice of rules of `verify`."""

from __future__ import annotations

import pytest

from sipfw.lower.xtables import Family
from sipfw.monitor.health import HealthState, judge
from sipfw.monitor.reading import growth, make_reading
from sipfw.monitor.report import Report, SetReport, SysctlReport
from sipfw.monitor.selection import Selection, grown
from sipfw.monitor.summary import summarise
from unit.readings import GONE, report, rule

RULES = (
    rule("trusted", "trusted.accept", "pass", 40, 2),
    rule("scanner-block", "scanner.request", "go", 900),
    rule("scanner-block", "scanner.probe", "drop", 30, 0),
    rule("banned", "banned.drop", "drop", 10, 0),
    rule("banned", "banned.tcp", "drop", 0, 0),
)


def test_a_layer_sums_what_it_dropped_and_let_through() -> None:
    trusted, scanner, banned = summarise(RULES)
    assert (trusted.dropped, trusted.passed, trusted.passed_bytes) == (0, 42, 4200)
    assert (scanner.dropped, scanner.dropped_bytes, scanner.share) == (30, 3000, 0.75)
    assert (banned.dropped, banned.share, banned.rate) == (10, 0.25, None)


def test_rates_are_of_the_time_between_two_readings() -> None:
    before = make_reading(report(*RULES), taken=10.0, boot="b", generation=1)
    later = (*RULES[:2], rule("scanner-block", "scanner.probe", "drop", 70, 4), *RULES[3:])
    now = make_reading(report(*later), taken=14.0, boot="b", generation=1)
    _, scanner, banned = summarise(later, growth(before, now))
    assert (scanner.rate, banned.rate) == (11.0, 0.0)


def test_no_packet_is_no_division() -> None:
    (layer,) = summarise([rule("banned", "b", "drop", 0)])
    assert layer.share == 0.0


def test_a_scope_is_of_layers_and_one_family() -> None:
    chosen = Selection(frozenset({"banned", "trusted"}), Family.IP6).scope(RULES)
    assert [(item.id, item.packets) for item in chosen] == [
        ("trusted.accept", 2),
        ("banned.drop", 0),
        ("banned.tcp", 0),
    ]


def test_a_rule_of_the_other_family_only_is_out_of_scope() -> None:
    assert Selection(family=Family.IP6).scope([rule("host", "h", "pass", 3)]) == []


def test_the_busiest_come_first() -> None:
    names = [item.id for item in Selection(top=2).shown(RULES)]
    assert names == ["scanner.request", "trusted.accept"]


def test_only_what_counted() -> None:
    assert "banned.tcp" not in {item.id for item in Selection(hits=True).shown(RULES)}


def test_growth_takes_the_place_of_the_counters() -> None:
    before = make_reading(report(*RULES), taken=10.0, boot="b", generation=1)
    later = (*RULES[:3], rule("banned", "banned.drop", "drop", 17, 0), RULES[4])
    now = make_reading(report(*later), taken=14.0, boot="b", generation=1)
    counted = {item.id: item.packets for item in grown(later, growth(before, now))}
    assert counted == {
        "trusted.accept": 0,
        "scanner.request": 0,
        "scanner.probe": 0,
        "banned.drop": 7,
        "banned.tcp": 0,
    }


def full(entries: int, *, dynamic: bool = True) -> Report:
    return report(sets=(SetReport("sipfw-banned4", "banned", entries, 100, dynamic),))


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (report(), HealthState.HEALTHY, "HEALTHY: the live firewall is the applied one"),
        (report(drift=(GONE,)), HealthState.DRIFT, "DRIFT: jump IPv4 raw PREROUTING: missing"),
        (report(drift=(GONE, GONE)), HealthState.DRIFT, "and 1 more"),
        (report(connections=80), HealthState.HEALTHY, ""),
        (
            report(connections=81),
            HealthState.DEGRADED,
            "connection tracking is 81 % full, 81 of 100",
        ),
        (report(connections=None), HealthState.HEALTHY, ""),
        (full(80), HealthState.HEALTHY, ""),
        (full(81), HealthState.DEGRADED, "set sipfw-banned4 is 81 % full, 81 of 100"),
        (full(99, dynamic=False), HealthState.HEALTHY, ""),
        (
            report(sysctls=(SysctlReport("net.x", 5, 6, "policy.yaml:1: x"),)),
            HealthState.DEGRADED,
            "net.x is 6, the policy says 5",
        ),
        (
            report(sysctls=(SysctlReport("net.x", 5, None, "policy.yaml:1: x"),)),
            HealthState.DEGRADED,
            "net.x is absent, the policy says 5",
        ),
        (
            report(sysctls=(SysctlReport("net.x", 5, 6, "policy.yaml:1: x", fixed=True),)),
            HealthState.HEALTHY,
            "",
        ),
        (report(drift=(GONE,), connections=99), HealthState.DEGRADED, "DEGRADED: jump IPv4"),
    ],
)
def test_health(seen: Report, state: HealthState, words: str) -> None:
    found = judge(seen)
    assert found.state is state
    assert words in found.line


def test_rules_in_two_packet_filters_are_degraded() -> None:
    found = judge(report(), "rules of sipfw are live in iptables and nftables")
    assert found.state is HealthState.DEGRADED
    assert "iptables and nftables" in found.line
