"""The screen of `verify --watch`: layers with their rates, the busiest rules, sets, health."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sipfw.cli.numbers import bytes_text, count_text, rate_text, share_text
from sipfw.kernel.detect import printable
from sipfw.monitor.health import NEARLY_FULL, HealthState
from sipfw.monitor.summary import summarise
from sipfw.words import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import ConsoleDimensions, RenderableType

    from sipfw.monitor.observe import Observation
    from sipfw.monitor.report import RuleReport
    from sipfw.monitor.selection import Selection
    from sipfw.monitor.summary import LayerSummary

_BARS = " ▁▂▃▄▅▆▇█"
_REMEMBERED = 60
_COLOURS = {HealthState.HEALTHY: "green", HealthState.DRIFT: "yellow", HealthState.DEGRADED: "red"}
# Lines that are always there: title, heads and frames of the tables, sums, health.
_FIXED_LINES = 12
# The two columns of numbers beside the busiest rules, and the space between all five.
_NUMBERS_WIDTH = 7 + 11 + 4 * 3 + 2


# Columns by the least width of the terminal: rich would cut the name of the layer first.
_NARROW = (
    (70, ("dropped/s", "dropped", "share", "bytes", "through/s")),
    (52, ("dropped/s", "dropped", "through/s")),
    (0, ("dropped/s", "dropped")),
)


class Screen:
    """What one watch has seen so far, and how it looks in a terminal of a given size."""

    def __init__(self, selection: Selection, interval: float) -> None:
        self._selection = selection
        self._interval = interval
        self._seen: Observation | None = None
        self._failure: str | None = None
        self._past: dict[str, deque[float]] = {}

    def show(self, seen: Observation) -> None:
        """Take a new look in."""
        self._seen, self._failure = seen, None
        for item in seen.layers:
            past = self._past.setdefault(item.layer, deque(maxlen=_REMEMBERED))
            if item.rate is not None:
                past.append(item.rate)

    def fail(self, message: str) -> None:
        """Say that the last look failed; what was seen before stays on the screen."""
        self._failure = message

    def render(self, size: ConsoleDimensions) -> RenderableType:
        """Return the screen, cut to the terminal's size."""
        parts: list[RenderableType] = []
        if self._failure is not None:
            parts.append(Text(self._failure, style="bold red"))
        seen = self._seen
        if seen is None:
            return Group(*parts)
        rules = self._selection.scope(seen.report.rules)
        layers = summarise(rules, seen.growth)
        parts += [self._title(seen), self._layers(layers, size.width)]
        room = size.height - _FIXED_LINES - len(layers) - len(seen.health.problems)
        busiest = self._busiest(seen, rules)[: self._selection.top or max(room, 3)]
        parts += [_rules(busiest, size.width), _fill(seen), *_health(seen)]
        return Group(*parts)

    def _title(self, seen: Observation) -> Text:
        text = Text()
        text.append("sipfw", "bold")
        text.append(f"  {seen.subject.backend.name}", style="cyan")
        if seen.subject.generation is not None:
            text.append(f"  generation {seen.subject.generation}")
        text.append(f"  {format_timestamp(time.time())}  every {self._interval:g} s  q ends", "dim")
        return text

    def _layers(self, layers: Sequence[LayerSummary], width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
        table.add_column("layer", no_wrap=True)
        names = next(names for least, names in _NARROW if width >= least)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        points = max(min(width - 70, _REMEMBERED), 0)
        if points:
            table.add_column(f"last {points * self._interval:.0f} s", no_wrap=True)
        for item in layers:
            passed = item.passed_rate
            cells: dict[str, RenderableType] = {
                "dropped/s": Text(rate_text(item.rate), style="bold red" if item.rate else "dim"),
                "dropped": count_text(item.dropped),
                "share": share_text(item.share),
                "bytes": bytes_text(item.dropped_bytes),
                "through/s": Text(rate_text(passed), style="green" if passed else "dim"),
            }
            row = [item.layer, *(cells[name] for name in names)]
            if points:
                past = list(self._past.get(item.layer, ()))[-points:]
                row.append(Text(sparkline(past), style="red" if any(past) else "bright_black"))
            table.add_row(*row)
        return table

    def _busiest(
        self, seen: Observation, rules: Sequence[RuleReport]
    ) -> list[tuple[float, RuleReport]]:
        """Return rules with what they count per second, the fastest first."""
        growth = seen.growth
        if growth is None or not growth.seconds:
            return []
        rated = [
            (
                sum(
                    growth.rules.get((family, rule.chain, rule.id), (0, 0))[0]
                    for family in rule.counts
                )
                / growth.seconds,
                rule,
            )
            for rule in rules
            if rule.action in {"drop", "pass"}
        ]
        return sorted((pair for pair in rated if pair[0]), key=lambda pair: -pair[0])


def sparkline(values: Sequence[float]) -> str:
    """Draw values as bars of eight heights; the tallest is the largest of them."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[1] * len(values)
    return "".join(_BARS[1 + round(7 * value / most)] for value in values)


def _rules(rated: Sequence[tuple[float, RuleReport]], width: int) -> RenderableType:
    if not rated:
        return Text("no rule is counting packets just now", style="dim")
    # Where it is narrow words are cut, numbers never: rich would cut both alike.
    room = max(width - max(len(rule.id) for _, rule in rated) - _NUMBERS_WIDTH, 10)
    policy = min(max(len(rule.origin) for _, rule in rated), room // 2)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("per s", justify="right", no_wrap=True, min_width=7)
    table.add_column("packets", justify="right", no_wrap=True, min_width=11)
    table.add_column("what it is", no_wrap=True, max_width=room - policy)
    table.add_column("policy", no_wrap=True, style="dim", max_width=policy)
    for rate, rule in rated:
        style = "red" if rule.action == "drop" else "green"
        table.add_row(
            Text(rule.id, style=style),
            rate_text(rate),
            count_text(rule.packets),
            Text(rule.summary),
            Text(rule.origin),
        )
    return table


def _fill(seen: Observation) -> Text:
    """Say how full connection tracking and the sets that packets fill are."""
    text = Text()
    conntrack = seen.report.conntrack
    if conntrack.share is not None:
        text.append("conntrack ")
        text.append(f"{100 * conntrack.share:.1f} %", _alarm(conntrack.share))
        text.append(f" of {conntrack.limit:,}   ")
    for item in seen.report.sets:
        if item.dynamic and item.entries and item.size:
            text.append(f"{item.name} ")
            text.append(f"{item.entries:,}", _alarm(item.entries / item.size))
            text.append("   ")
    return text


def _alarm(share: float) -> str:
    return "bold red" if share > NEARLY_FULL else "bold"


def _health(seen: Observation) -> list[Text]:
    state = seen.health.state
    colour = _COLOURS[state]
    if not seen.health.problems and seen.health.unheard is not None:
        return [Text(printable(seen.health.line), style="bold red")]
    if not seen.health.problems:
        return [Text(seen.health.line, style=colour)]
    return [Text(f"{state.name}: {problem}", style=colour) for problem in seen.health.problems]
