"""What `verify` found, for people: layers, rules, sets, kernel, verdict."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

from sipfw.cli.numbers import bytes_text, count_text, rate_text, share_text
from sipfw.cli.output import table, table_rows
from sipfw.cli.peer_view import peer_lines
from sipfw.cli.screen import screen_width, wrapped
from sipfw.compiler.panic import is_of_panic
from sipfw.lower.xtables import Family
from sipfw.monitor.health import UNGUARDED
from sipfw.words import format_duration, format_timestamp, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sipfw.monitor.observe import Observation
    from sipfw.monitor.report import Report, RuleReport, SetReport, SysctlReport
    from sipfw.monitor.selection import Selection
    from sipfw.monitor.summary import LayerSummary

# A terminal of 24 lines, and one for the prompt below.
_LINES = 23
_COLUMNS = 80
_BUSIEST = 8
_REASONS = 6
# Of one reason, where there are many.
_TALLEST = 4
_MEND = "sipfw apply mends what is sipfw's own, what others added take out by hand"
_RESTORE = "sipfw restore brings back generation"

NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}


def as_lines(
    seen: Observation,
    layers: Sequence[LayerSummary],
    rules: Sequence[RuleReport],
    *,
    selection: Selection,
    only_since: bool = False,
) -> Iterator[str]:
    """Return the whole report for people; `rules` are those that `selection` shows.

    `only_since`: the numbers are those since the earlier reading.
    """
    yield from _verdict(seen)
    yield from _head(seen, only_since=only_since)
    yield ""
    yield from layer_lines(layers)
    yield ""
    yield from _rules(rules, by_packets=selection.top is not None)
    if not selection.layers:
        yield from _sets([item for item in seen.report.sets if item.entries or not selection.hits])
        yield from _kernel(seen.report)
        yield from _peers(seen)


def one_screen(
    seen: Observation, layers: Sequence[LayerSummary], rules: Sequence[RuleReport]
) -> Iterator[str]:
    """Return what matters most, in the lines of a terminal of 24; the rest is one option away.

    A verdict with many reasons may take them all: then the busiest rules go first, layers that
    have counted nothing next, and the last reasons are counted.
    """
    verdict = list(_verdict(seen))
    told = "every rule, set and setting: sipfw verify --rules"
    end = [*_kernel_line(seen.report), told]
    if not seen.health.active:
        yield from [*_within(verdict, _LINES - 1), told]
        return
    head = list(_head(seen, only_since=False))
    counted = [item for item in layers if item.dropped or item.passed] or list(layers[:1])
    least = _height([*head, "", *layer_lines(counted), "", *end])
    # A narrow screen has no room for all; the reasons come before it.
    reasons = _within(verdict, max(_LINES - least, _REASONS))
    room = _LINES - _height([*reasons, *head, "", *layer_lines(layers), "", *end])
    shown = layer_lines(layers if room >= 0 else counted)
    busiest = sorted((rule for rule in rules if rule.packets), key=lambda rule: -rule.packets)
    yield from [*reasons, *head, "", *shown, "", *_busiest(busiest, room - 1), *end]


def _within(lines: Sequence[str], room: int) -> list[str]:
    """Return the first of the lines that have room, and how many more there are.

    A rule of somebody else may be longer than the screen.
    """
    if _height(lines) <= room:
        return list(lines)
    kept: list[str] = []
    for line in lines:
        parts = wrapped(line, screen_width() or _COLUMNS)
        cut = (
            line if len(parts) <= _TALLEST else f"{' '.join(map(str.strip, parts[:_TALLEST]))} ..."
        )
        if _height([*kept, cut]) >= room:
            break
        kept.append(cut)
    left = len(lines) - len(kept)
    return [*kept, f"  and {left} more"] if left else kept


def _height(lines: Iterable[str]) -> int:
    width = screen_width() or _COLUMNS
    return sum(len(wrapped(line, width)) for line in lines)


def _busiest(rules: Sequence[RuleReport], room: int) -> list[str]:
    """Return as many of the rules as have room, under a title."""
    rows = [[rule.id, count_text(rule.packets), rule.summary] for rule in rules[:_BUSIEST]]
    lines: list[str] = []
    for found in table_rows([["busiest rules", "packets", "what it is"], *rows], right=(1,)):
        if _height([*lines, *found, ""]) > room:
            break
        lines += found
    return [*lines, ""] if len(lines) > 1 else []


def _kernel_line(report: Report) -> Iterator[str]:
    conntrack = report.conntrack
    if conntrack.count is None or conntrack.limit is None:
        yield "connection tracking is not loaded"
        return
    share = 100 * (conntrack.share or 0.0)
    used, room = f"{conntrack.count:,}", f"{conntrack.limit:,}"
    yield f"connection tracking holds {used} of {room} ({share:.1f} %)"


def brief_line(seen: Observation) -> str:
    """Return one line, with the figures that a monitoring system draws behind a bar.

    The form is that of Nagios plugins (guidelines, "performance data").
    """
    layers = seen.layers
    figures = [
        f"dropped={sum(item.dropped for item in layers)}c",
        f"passed={sum(item.passed for item in layers)}c",
    ]
    share = seen.report.conntrack.share
    if share is not None:
        figures.append(f"conntrack={100 * share:.1f}%;80;95;0;100")
    return f"{_one_line(seen.health.line)} | {' '.join(figures)}"


def _one_line(text: str) -> str:
    # A bar would begin the figures; a rule's own words may hold anything.
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain.replace("|", "/")


def _head(seen: Observation, *, only_since: bool) -> Iterator[str]:
    report, subject = seen.report, seen.subject
    families = " and ".join(NAMES[family] for family in report.families) or "nothing"
    number = "" if subject.generation is None else f", generation {subject.generation}"
    yield f"firewall for {families} in {subject.backend.name}{number}, from {subject.source}"
    if seen.earlier is None or seen.growth is None:
        yield "no earlier reading to count a rate from"
        return
    ago = format_duration(time.time() - seen.earlier.taken)
    what = "only what was counted" if only_since else "rates"
    yield f"{what} since {format_timestamp(seen.earlier.taken)}, {ago} ago"
    if seen.growth.reset:
        what = pluralize(seen.growth.reset, "counter")
        yield f"{what} had been set back meanwhile and began again"


def layer_lines(layers: Sequence[LayerSummary]) -> list[str]:
    """Return one line per layer and their sum."""
    rows = [["layer", "dropped", "bytes", "share", "per s", "let through", "bytes", "per s"]]
    rows += [
        [
            item.layer,
            count_text(item.dropped),
            bytes_text(item.dropped_bytes),
            share_text(item.share),
            rate_text(item.rate),
            count_text(item.passed),
            bytes_text(item.passed_bytes),
            rate_text(item.passed_rate),
        ]
        for item in layers
    ]
    dropped = sum(item.dropped for item in layers)
    rates = [item.rate for item in layers if item.rate is not None]
    rows.append(
        [
            "all",
            count_text(dropped),
            bytes_text(sum(item.dropped_bytes for item in layers)),
            share_text(1.0 if dropped else 0.0),
            rate_text(sum(rates) if rates else None),
            # A packet that several hooks let through would be counted as often.
            *("" for _ in range(3)),
        ]
    )
    return table(rows, right=range(1, 8))


def _rules(rules: Sequence[RuleReport], *, by_packets: bool) -> Iterator[str]:
    if not rules:
        yield "no rule has counted a packet yet"
        yield ""
        return
    families = list(dict.fromkeys(family for rule in rules for family in rule.counts))
    head = ["rule"]
    for family in families:
        head += [f"{NAMES[family]} packets", "bytes"]
    rows: list[list[str]] = [[*head, "what it is", "policy"]]
    layers: list[tuple[int, str]] = []
    for layer, group in [("", rules)] if by_packets else _by_layer(rules):
        layers.append((len(rows), layer or "busiest rules"))
        rows += [_row(rule, families) for rule in group]
    titles = dict(layers)
    for index, lines in enumerate(table_rows(rows, right=range(1, 1 + 2 * len(families)))):
        if index in titles:
            yield ""
            yield f"[{titles[index]}]"
        yield from lines
    yield ""


def _by_layer(rules: Iterable[RuleReport]) -> list[tuple[str, Sequence[RuleReport]]]:
    return [(layer, list(group)) for layer, group in groupby(rules, key=lambda rule: rule.layer)]


def _row(rule: RuleReport, families: Sequence[Family]) -> list[str]:
    cells = [rule.id]
    for family in families:
        count = rule.counts.get(family)
        cells += ["-", "-"] if count is None else [f"{count.packets:,}", f"{count.bytes:,}"]
    return [*cells, rule.summary, rule.origin]


def _sets(sets: Sequence[SetReport]) -> Iterator[str]:
    if not sets:
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
        for item in sets
    ]
    yield from table(rows, right=(1, 2))
    yield ""


def _kernel(report: Report) -> Iterator[str]:
    yield "[kernel]"
    yield from _kernel_line(report)
    rows = [
        [
            item.name,
            "absent" if item.actual is None else str(item.actual),
            _setting_text(item),
            item.origin,
        ]
        for item in report.sysctls
    ]
    yield from table(rows, right=(1,), head=False)
    yield ""


def _peers(seen: Observation) -> Iterator[str]:
    """Say of which peers packets were dropped within a day; what is recent is in the verdict."""
    if not seen.peers:
        return
    yield "[peers]"
    for peer in seen.peers:
        yield from peer_lines(peer, seen.reading.taken)
    yield ""


def _setting_text(item: SysctlReport) -> str:
    if item.agrees:
        return "as the policy says"
    text = f"the policy says {item.wanted}"
    return f"{text}; set it on the host of this container" if item.fixed else text


def _verdict(seen: Observation) -> Iterator[str]:
    report, health = seen.report, seen.health
    panic = [rule for rule in report.rules if is_of_panic(rule.id)]
    if any(count is not None for rule in panic for count in rule.counts.values()):
        yield "PANIC: only trusted peers and admins get in; end it: sipfw panic off"
    if not health.active:
        number = seen.subject.generation
        mend = "make it live: sipfw apply" if number is None else f"{_RESTORE} {number}"
        yield f"NOT ACTIVE: {UNGUARDED}; {mend}"
        return
    if not health.problems:
        yield health.line
    for problem in health.problems[1 if report.drift else 0 :]:
        yield f"DEGRADED: {problem}"
    if report.drift:
        places = pluralize(len(report.drift), "place")
        yield f"DRIFT: the live firewall differs in {places}; {_MEND}:"
        for item in report.drift:
            yield f"  {item}"
    for note in health.notes:
        if note != health.unheard:
            yield f"note: {note}"
