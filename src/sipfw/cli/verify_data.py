"""What `verify` found, for machines; docs/verify.schema.json describes every field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.cli.peer_view import peer_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.compare.drift import Drift
    from sipfw.monitor.observe import Observation
    from sipfw.monitor.report import RuleReport
    from sipfw.monitor.summary import LayerSummary

# Counts up when a field goes or changes its meaning; a new field leaves it as it is.
FORMAT = 1


def as_data(
    seen: Observation, layers: Iterable[LayerSummary], rules: Iterable[RuleReport]
) -> dict[str, Any]:
    """Return the report for machines."""
    report, earlier, growth = seen.report, seen.earlier, seen.growth
    return {
        "format": FORMAT,
        "taken": round(seen.reading.taken, 3),
        "source": seen.subject.source,
        "backend": seen.subject.backend.name,
        "generation": seen.subject.generation,
        "clean": not report.drift,
        "state": seen.health.state.name.lower(),
        "problems": list(seen.health.problems),
        "notes": list(seen.health.notes),
        "unheard": seen.health.unheard,
        "since": None if earlier is None else round(earlier.taken, 3),
        "counters_reset": 0 if growth is None else growth.reset,
        "families": [family.value for family in report.families],
        "layers": [_layer(item) for item in layers],
        "rules": [_rule(rule) for rule in rules],
        "sets": [
            {"name": s.name, "summary": s.summary, "entries": s.entries, "size": s.size}
            for s in report.sets
        ],
        "conntrack": {"count": report.conntrack.count, "max": report.conntrack.limit},
        "sysctls": [
            {
                "name": s.name,
                "wanted": s.wanted,
                "actual": s.actual,
                "fixed": s.fixed,
                "origin": s.origin,
            }
            for s in report.sysctls
        ],
        "drift": drift_data(report.drift),
        "peers": [peer_data(peer) for peer in seen.peers],
    }


def drift_data(items: Sequence[Drift]) -> list[dict[str, str]]:
    """Return differences as plain data."""
    return [
        {
            "kind": item.kind.value,
            "what": item.what,
            "where": item.where,
            "detail": item.detail,
            "origin": item.origin,
        }
        for item in items
    ]


def _layer(item: LayerSummary) -> dict[str, Any]:
    return {
        "layer": item.layer,
        "dropped": {"packets": item.dropped, "bytes": item.dropped_bytes},
        "passed": {"packets": item.passed, "bytes": item.passed_bytes},
        "share": round(item.share, 4),
        "dropped_per_second": _rounded(item.rate),
        "passed_per_second": _rounded(item.passed_rate),
    }


def _rule(rule: RuleReport) -> dict[str, Any]:
    counts = {
        family.value: None if count is None else {"packets": count.packets, "bytes": count.bytes}
        for family, count in rule.counts.items()
    }
    return {
        "layer": rule.layer,
        "chain": rule.chain,
        "id": rule.id,
        "action": rule.action,
        "summary": rule.summary,
        "origin": rule.origin,
        "counts": counts,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
