"""What a scrape found, as metrics: their names, labels and meaning."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw import __version__
from sipfw.compiler.panic import is_of_panic
from sipfw.monitor.health import HealthState
from sipfw.monitor.metrics.text import Metric, MetricType, Sample
from sipfw.monitor.peer_traffic import unnamed
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sipfw.monitor.metrics.scrape import Scrape
    from sipfw.monitor.metrics.text import Value
    from sipfw.monitor.observe import Observation
    from sipfw.monitor.report import Report, RuleReport
    from sipfw.monitor.summary import LayerSummary

_FAMILIES = {Family.IP: "ipv4", Family.IP6: "ipv6"}
_DECIDING = frozenset({"drop", "pass"})


class RuleSeries(StrEnum):
    """Which rules have series of their own: those that drop or let through, all, or none."""

    DECIDING = "deciding"
    ALL = "all"
    NONE = "none"


def metrics_of(found: Scrape, rules: RuleSeries = RuleSeries.DECIDING) -> Iterator[Metric]:
    """Return the metrics, those that an alert rests on first; a failed look has those only."""
    yield Metric(
        "sipfw_build",
        MetricType.INFO,
        "The version of sipfw.",
        (Sample({"version": __version__}, 1),),
    )
    yield _gauge(
        "sipfw_up",
        "1 when the applied firewall could be looked at, 0 when there is none or it could not.",
        int(found.seen is not None),
    )
    yield _gauge(
        "sipfw_scrape_duration_seconds",
        "How long the look at the host took.",
        round(found.seconds, 6),
        unit="seconds",
    )
    yield from _health(found)
    yield from _change(found)
    yield from _restores(found)
    if found.seen is not None:
        yield from _firewall(found.seen, found.applied)
        yield from _layers(found.seen.layers)
        yield from _rules(found.seen.report.rules, rules)
        yield from _sets(found.seen.report)
        yield from _peers(found.seen)
        yield from _kernel(found.seen.report)


def _gauge(name: str, help_text: str, value: Value, *, unit: str = "") -> Metric:
    return Metric(name, MetricType.GAUGE, help_text, (Sample({}, value),), unit)


def _health(found: Scrape) -> Iterator[Metric]:
    seen = found.seen
    yield _gauge(
        "sipfw_health_state",
        "0 healthy, 1 drift, 2 degraded or not to be looked at; the exit code of sipfw verify.",
        int(HealthState.DEGRADED if seen is None else seen.health.state),
    )
    yield _gauge(
        "sipfw_health_problems",
        "Reasons for the state; sipfw verify names them.",
        1 if seen is None else len(seen.health.problems),
    )
    if seen is not None:
        yield _gauge(
            "sipfw_drift",
            "Rules, chains, jumps and sets that are missing, extra, moved or changed.",
            len(seen.report.drift),
        )


def _change(found: Scrape) -> Iterator[Metric]:
    change = found.change
    yield _gauge(
        "sipfw_change_unfinished",
        "1 while an apply waits for sipfw confirm, or has died half way.",
        int(change is not None),
    )
    yield _gauge(
        "sipfw_confirm_pending_seconds",
        "Time until the apply that waits for sipfw confirm is taken back, 0 when none waits.",
        0 if change is None else round(change.left, 3),
        unit="seconds",
    )


def _restores(found: Scrape) -> Iterator[Metric]:
    yield Metric(
        "sipfw_restores",
        MetricType.COUNTER,
        "Times that another program took the firewall away, or part of it, and it was restored.",
        (Sample({}, found.restores.total),),
    )
    yield _gauge(
        "sipfw_restores_held",
        "1 while it is not restored any more, because it was taken away too often.",
        int(found.restores.held),
    )


def _firewall(seen: Observation, applied: float | None) -> Iterator[Metric]:
    subject = seen.subject
    labels = {"backend": subject.backend.name, "source": subject.source}
    yield Metric(
        "sipfw_firewall",
        MetricType.INFO,
        "The live firewall: its backend and the files it was made from.",
        (Sample(labels, 1),),
    )
    yield _gauge(
        "sipfw_policy_changed",
        "1 while the policy file or a profile says something else than what is in force.",
        int(seen.policy_changed is not None),
    )
    yield _gauge(
        "sipfw_panic",
        "1 while only trusted peers and admins get in.",
        int(any(is_of_panic(rule.id) for rule in seen.report.rules)),
    )
    if subject.generation is not None:
        yield _gauge(
            "sipfw_generation", "Number of the live generation, see history.", subject.generation
        )
    if applied is not None:
        yield _gauge(
            "sipfw_last_apply_timestamp_seconds",
            "When the live generation was made, in seconds since 1970.",
            applied,
            unit="seconds",
        )


def _layers(layers: Iterable[LayerSummary]) -> Iterator[Metric]:
    items = tuple(layers)
    counts = (
        ("dropped", "packets", "dropped", {item.layer: item.dropped for item in items}),
        ("dropped", "bytes", "dropped", {item.layer: item.dropped_bytes for item in items}),
        ("passed", "packets", "let through", {item.layer: item.passed for item in items}),
        ("passed", "bytes", "let through", {item.layer: item.passed_bytes for item in items}),
    )
    for verb, unit, what, values in counts:
        yield Metric(
            f"sipfw_layer_{verb}_{unit}",
            MetricType.COUNTER,
            f"{unit.capitalize()} that a layer {what}.",
            tuple(Sample({"layer": name}, value) for name, value in values.items()),
            unit,
        )


def _rules(rules: Iterable[RuleReport], wanted: RuleSeries) -> Iterator[Metric]:
    chosen = [
        rule
        for rule in rules
        if wanted is RuleSeries.ALL or (wanted is RuleSeries.DECIDING and rule.action in _DECIDING)
    ]
    counts = [
        (_rule_labels(rule, family), count)
        for rule in chosen
        for family, count in rule.counts.items()
        if count is not None
    ]
    yield Metric(
        "sipfw_rule_packets",
        MetricType.COUNTER,
        "Packets that a rule matched.",
        tuple(Sample(labels, count.packets) for labels, count in counts),
        "packets",
    )
    yield Metric(
        "sipfw_rule_bytes",
        MetricType.COUNTER,
        "Bytes of the packets that a rule matched.",
        tuple(Sample(labels, count.bytes) for labels, count in counts),
        "bytes",
    )


def _rule_labels(rule: RuleReport, family: Family) -> Mapping[str, str]:
    return {
        "family": _FAMILIES[family],
        "layer": rule.layer,
        "chain": rule.chain,
        "rule": rule.id,
        "action": rule.action,
    }


def _sets(report: Report) -> Iterator[Metric]:
    # ipset's names have a prefix that those in our own nftables table do not need.
    sets = [
        (
            {
                "set": item.name.removeprefix("sipfw-"),
                # A full set of notes is no fault, so no alert about dynamic ones should see it.
                "kind": "notes" if item.notes else "dynamic" if item.dynamic else "static",
            },
            item,
        )
        for item in report.sets
    ]
    yield Metric(
        "sipfw_set_entries",
        MetricType.GAUGE,
        "Entries in a set; packets fill a dynamic one and notes, the policy a static one.",
        tuple(Sample(labels, item.entries) for labels, item in sets if item.entries is not None),
    )
    yield Metric(
        "sipfw_set_size",
        MetricType.GAUGE,
        "Entries that a set has room for.",
        tuple(Sample(labels, item.size) for labels, item in sets if item.size is not None),
    )


def _peers(seen: Observation) -> Iterator[Metric]:
    if unnamed(seen.subject.expectation, seen.report.rules):
        # A nought for each peer would be a lie; the rule's own series tells of all together.
        return
    yield Metric(
        "sipfw_peer_lost_packets",
        MetricType.GAUGE,
        "Packets of a trusted peer that no rule admits, dropped within the last day.",
        tuple(Sample({"peer": item.name}, item.dropped) for item in seen.peers),
        "packets",
    )


def _kernel(report: Report) -> Iterator[Metric]:
    conntrack = report.conntrack
    if conntrack.count is not None and conntrack.limit is not None:
        yield _gauge(
            "sipfw_conntrack_entries", "Connections that the kernel tracks.", conntrack.count
        )
        yield _gauge(
            "sipfw_conntrack_limit", "Connections that the kernel can track.", conntrack.limit
        )
    yield Metric(
        "sipfw_sysctl_agrees",
        MetricType.GAUGE,
        "1 when a kernel setting is as the policy says, else 0.",
        tuple(Sample({"sysctl": item.name}, int(item.agrees)) for item in report.sysctls),
    )
