"""The report in words: verdict, key figures, charts and tables, ready to be rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw import __version__
from sipfw.cli import report_tables as tables
from sipfw.cli.numbers import bytes_text, count_text, rate_text, share_text
from sipfw.cli.verify_view import NAMES
from sipfw.monitor.health import NEARLY_FULL, HealthState
from sipfw.render.charts import Frame, lined, stacked
from sipfw.render.report import Figure, ReportPage, ReportSection
from sipfw.ruleset.model import Layer
from sipfw.words import format_duration, format_timestamp, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.monitor.page import Facts
    from sipfw.monitor.series import Gap, Series

_FEW = "There is one reading so far. Every sipfw verify, metrics and report keeps one."
_MOST_NOTES = 5
_TONES = {HealthState.HEALTHY: "good", HealthState.DRIFT: "warn", HealthState.DEGRADED: "bad"}


def page_of(facts: Facts) -> ReportPage:
    """Return the whole report."""
    seen = facts.seen
    families = " and ".join(NAMES[family] for family in seen.report.families) or "nothing"
    number = "" if seen.subject.generation is None else f", generation {seen.subject.generation}"
    head, _, text = seen.health.line.partition(": ")
    return ReportPage(
        title=f"sipfw on {facts.host}",
        subtitle=f"Firewall for {families} in {seen.subject.backend.name}{number}, "
        f"from {seen.subject.source}",
        made=format_timestamp(facts.made),
        state=head.lower(),
        verdict=f"{text[:1].upper()}{text[1:]}." if not seen.health.problems else "",
        problems=seen.health.problems,
        figures=tuple(_figures(facts)),
        sections=tuple(_sections(facts)),
        notes=(*facts.notes, *facts.sources.notes),
        footer=f"sipfw {__version__}; {pluralize(facts.readings, 'reading')} since "
        f"{format_timestamp(facts.since)}; counters since their rules went live",
    )


def _figures(facts: Facts) -> Iterator[Figure]:
    seen, series = facts.seen, facts.series
    dropped = sum(item.dropped for item in seen.layers)
    size = bytes_text(sum(item.dropped_bytes for item in seen.layers))
    yield Figure("Dropped", count_text(dropped), f"packets in all, {size}")
    if series is not None:
        span = format_duration(series.last - series.first)
        yield Figure("Dropped lately", count_text(sum(series.counted.values())), f"in {span}")
    rates = [item.rate for item in seen.layers if item.rate is not None]
    if rates and seen.growth is not None:
        note = f"packets per second, over {format_duration(seen.growth.seconds)}"
        yield Figure("Dropping now", rate_text(sum(rates)), note)
    for item in seen.layers:
        if item.layer == Layer.TRUSTED:
            note = f"packets of trusted peers, {bytes_text(item.passed_bytes)}"
            yield Figure("Let through", count_text(item.passed), note, "good")
    yield Figure("Banned", count_text(_held(facts, "banned", "blocked")), "addresses just now")
    conntrack = seen.report.conntrack
    if conntrack.share is not None:
        tone = "bad" if conntrack.share > NEARLY_FULL else ""
        note = f"full, {count_text(conntrack.count or 0)} of {count_text(conntrack.limit or 0)}"
        yield Figure("Tracked", f"{100 * conntrack.share:.1f} %", note, tone)


def _held(facts: Facts, *names: str) -> int:
    """Sum the entries of sets by the name that they have in the ruleset."""
    return sum(
        item.entries or 0
        for item in facts.seen.report.sets
        if item.name.removeprefix("sipfw-").rstrip("46") in names
    )


def _sections(facts: Facts) -> Iterator[ReportSection]:
    report = facts.seen.report
    yield _blocked(facts)
    yield _trusted(facts)
    yield _connections(facts)
    yield ReportSection(
        "layers", "Layers", table=tables.layers_table(facts.seen.layers, facts.series)
    )
    more = len(facts.sources.sources) - tables.MOST_SOURCES
    yield ReportSection(
        "sources",
        "Top sources",
        f"Dropped since {format_timestamp(facts.since)}, as far as a look has seen it: bans by the "
        "timer of sipfw keep, the rest by sipfw top and report, this time in "
        f"{format_duration(facts.sources.looked)} of arriving packets.",
        table=tables.sources_table(facts),
        notes=(f"and {more:,} more; see sipfw events",) if more > 0 else (),
    )
    yield ReportSection("rules", "Busiest rules", table=tables.rules_table(report.rules))
    yield ReportSection("sets", "Sets", table=tables.sets_table(report.sets))
    yield ReportSection(
        "peers",
        "Peers",
        "Packets are known where the rules hold the networks of a peer one by one.",
        table=tables.peers_table(facts.peers),
    )
    yield ReportSection(
        "drift",
        "Drift",
        table=tables.drift_table(report.drift),
        notes=("Run sipfw apply to make it right.",) if report.drift else (),
    )
    yield ReportSection("kernel", "Kernel settings", table=tables.kernel_table(report))
    yield ReportSection(
        "generations", "Generations", table=tables.generations_table(facts.generations)
    )


def _blocked(facts: Facts) -> ReportSection:
    title, series = "Blocked over time, by layer", facts.series
    if series is None or not series.dropped:
        return ReportSection(
            "blocked", title, _FEW if series is None else "No layer drops anything."
        )
    # The layer that drops most lies at the bottom, where its shape is plain.
    order = sorted(series.dropped, key=lambda name: -series.counted.get(name, 0))
    shown = [name for name in order if series.counted.get(name)] or order[:1]
    drawn = [(name, tables.COLOURS.get(name, 0), series.dropped[name]) for name in shown]
    sums = [_sum([values[i] for _, _, values in drawn]) for i in range(len(drawn[0][2]))]
    peak = _peak(series, sums, "dropped")
    total = pluralize(sum(series.counted.values()), "packet")
    frame = _frame(series, "Dropped", f"{total} dropped. {peak}")
    return ReportSection("blocked", title, chart=stacked(frame, drawn), notes=tuple(_notes(series)))


def _trusted(facts: Facts) -> ReportSection:
    title, series = "Trusted peers, let through", facts.series
    values = None if series is None else series.passed.get(Layer.TRUSTED)
    if series is None or values is None:
        return ReportSection(
            "trusted", title, _FEW if series is None else "The policy trusts nobody."
        )
    frame = _frame(series, "Let through", _peak(series, values, "let through"))
    colour = tables.COLOURS[Layer.TRUSTED]
    return ReportSection("trusted", title, chart=stacked(frame, [(Layer.TRUSTED, colour, values)]))


def _connections(facts: Facts) -> ReportSection:
    title, series = "Connection tracking", facts.series
    if series is None or not series.connections:
        intro = _FEW if series is None else "Connection tracking is not loaded."
        return ReportSection("connections", title, intro)
    most, at = max((value, at) for run in series.connections for at, value in run)
    limit = facts.seen.report.conntrack.limit
    room = f" of {count_text(limit)} ({share_text(most / limit)})" if limit else ""
    summary = f"Highest: {count_text(most)}{room} at {format_timestamp(at)}."
    frame = Frame("Tracked", "connections", series.first, series.last, summary=summary, say=_count)
    return ReportSection(
        "connections", title, chart=lined(frame, "connections", 0, series.connections)
    )


def _frame(series: Series, title: str, summary: str) -> Frame:
    marks = [(mark.at, mark.what) for mark in series.marks]
    return Frame(title, "packets per second", series.start, series.end, marks, summary, _number)


def _peak(series: Series, values: Sequence[float | None], what: str) -> str:
    known = [(value, -index) for index, value in enumerate(values) if value is not None]
    if not known:
        return f"Nothing is known of what was {what}."
    most, index = max(known)
    when = format_timestamp(series.start - index * series.step)
    if not most:
        return f"No packet was {what}."
    return f"Highest: {_number(most)} per second {what}, at {when}."


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _notes(series: Series) -> Iterator[str]:
    """Say what the chart cannot draw: gaps and what happened to the counters, newest first."""
    yield f"Each step is {format_duration(series.step)}."
    found = [(gap.start, _gap_text(gap)) for gap in series.gaps]
    found += [(mark.at, f"{format_timestamp(mark.at)}: {mark.what}.") for mark in series.marks]
    found.sort(reverse=True)
    yield from (text for _, text in found[:_MOST_NOTES])
    if len(found) > _MOST_NOTES:
        yield f"and {pluralize(len(found) - _MOST_NOTES, 'earlier one')}"


def _gap_text(gap: Gap) -> str:
    were = "was" if gap.dropped == 1 else "were"
    dropped = f"{pluralize(gap.dropped, 'packet')} {were} dropped meanwhile"
    return (
        f"No readings from {format_timestamp(gap.start)} to {format_timestamp(gap.end)}; {dropped}."
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _count(value: float) -> str:
    return count_text(round(value)) if value == int(value) else f"{value:.1f}"
