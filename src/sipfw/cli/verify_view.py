"""A verify report as text and as JSON."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from sipfw.cli.output import table
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.verify.report import Report, RuleReport

FORMAT = 1

_NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}


def as_lines(report: Report, source: str, *, hits: bool) -> Iterator[str]:
    """Return the report for people."""
    families = " and ".join(_NAMES[family] for family in report.families) or "nothing"
    yield f"firewall for {families}, from {source}"
    yield ""
    yield from _counters(report, hits=hits)
    yield from _sets(report)
    yield from _kernel(report)
    yield from _verdict(report)


def _counters(report: Report, *, hits: bool) -> Iterator[str]:
    shown = [rule for rule in report.rules if rule.packets or not hits]
    if not shown:
        yield "no rule has counted a packet yet"
        yield ""
        return
    head = ["rule"]
    for family in report.families:
        head += [f"{_NAMES[family]} packets", "bytes"]
    rows: list[list[str]] = [[*head, "what it is", "policy"]]
    layers: list[tuple[int, str]] = []
    for layer, rules in groupby(shown, key=lambda rule: rule.layer):
        layers.append((len(rows), layer))
        rows += [_row(rule, report) for rule in rules]
    lines = table(rows, right=range(1, 1 + 2 * len(report.families)))
    titles = dict(layers)
    for index, line in enumerate(lines):
        if index in titles:
            yield ""
            yield f"[{titles[index]}]"
        yield line
    yield ""


def _row(rule: RuleReport, report: Report) -> list[str]:
    cells = [rule.id]
    for family in report.families:
        count = rule.counts.get(family)
        cells += ["-", "-"] if count is None else [f"{count.packets:,}", f"{count.bytes:,}"]
    return [*cells, rule.summary, rule.origin]


def _sets(report: Report) -> Iterator[str]:
    if not report.sets:
        return
    yield "[sets]"
    rows = [["set", "entries", "room", "what it holds"]]
    rows += [
        [
            item.name,
            "missing" if item.entries is None else f"{item.entries:,}",
            f"{item.size:,}" if item.size is not None else "-",
            item.summary,
        ]
        for item in report.sets
    ]
    yield from table(rows, right=(1, 2))
    yield ""


def _kernel(report: Report) -> Iterator[str]:
    yield "[kernel]"
    conntrack = report.conntrack
    if conntrack.count is None or conntrack.limit is None:
        yield "connection tracking is not loaded"
    else:
        share = 100 * (conntrack.share or 0.0)
        used, room = f"{conntrack.count:,}", f"{conntrack.limit:,}"
        yield f"connection tracking holds {used} of {room} ({share:.1f} %)"
    rows = [
        [
            item.name,
            "absent" if item.actual is None else str(item.actual),
            "as the policy says" if item.agrees else f"the policy says {item.wanted}",
            item.origin,
        ]
        for item in report.sysctls
    ]
    yield from table(rows, right=(1,))
    yield ""


def _verdict(report: Report) -> Iterator[str]:
    if not report.drift:
        yield "the live firewall is the applied one"
        return
    yield f"the live firewall differs in {len(report.drift)} places:"
    for item in report.drift:
        yield f"  {item}"
    yield "run `sipfw apply` to make it right"


def as_data(report: Report, source: str) -> dict[str, Any]:
    """Return the report for machines; `format` counts up when a field changes its meaning."""
    return {
        "format": FORMAT,
        "source": source,
        "clean": not report.drift,
        "families": [family.value for family in report.families],
        "rules": [_rule_data(rule) for rule in report.rules],
        "sets": [
            {"name": s.name, "summary": s.summary, "entries": s.entries, "size": s.size}
            for s in report.sets
        ],
        "conntrack": {"count": report.conntrack.count, "max": report.conntrack.limit},
        "sysctls": [
            {"name": s.name, "wanted": s.wanted, "actual": s.actual, "origin": s.origin}
            for s in report.sysctls
        ],
        "drift": [
            {
                "kind": d.kind.value,
                "what": d.what,
                "where": d.where,
                "detail": d.detail,
                "origin": d.origin,
            }
            for d in report.drift
        ],
    }


def _rule_data(rule: RuleReport) -> dict[str, Any]:
    counts = {
        family.value: None if count is None else {"packets": count.packets, "bytes": count.bytes}
        for family, count in rule.counts.items()
    }
    return {
        "layer": rule.layer,
        "chain": rule.chain,
        "id": rule.id,
        "summary": rule.summary,
        "origin": rule.origin,
        "counts": counts,
    }
