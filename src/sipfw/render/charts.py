"""Figures over time as shapes: paths and places, drawn here so that a page needs no script.

Shapes are in a box of 1000 by 200 that the page may stretch; words are placed in per cent of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypeAlias

from sipfw.words import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

WIDTH, HEIGHT = 1000.0, 200.0

Values: TypeAlias = "Sequence[float | None]"

_TICK_STEPS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800)
_MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Tick:
    """A word beside an axis; `at` is in per cent from the left, or from the bottom.

    A `minor` one may go where there is little room.
    """

    at: float
    text: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """One layer's area or one line; `colour` is the number of a colour of the page."""

    name: str
    colour: int
    path: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A part of the time, with what a pointer over it is told."""

    x: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture. `blanks` are times of which nothing is known."""

    title: str
    unit: str
    shapes: tuple[Shape, ...]
    blanks: tuple[Strip, ...]
    strips: tuple[Strip, ...]
    marks: tuple[Strip, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    filled: bool
    summary: str = ""
    legend: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """From when to when a chart goes, in seconds since 1970, and what happened at which moment."""

    title: str
    unit: str
    start: float
    end: float
    marks: Sequence[tuple[float, str]] = ()
    summary: str = ""
    say: Callable[[float], str] = field(default=lambda value: f"{value:g}")

    def x(self, moment: float) -> float:
        """Return the place of a moment."""
        share = (moment - self.start) / max(self.end - self.start, 1e-9)
        return round(WIDTH * min(max(share, 0.0), 1.0), 2)


def stacked(frame: Frame, layers: Sequence[tuple[str, int, Values]]) -> Chart:
    """Draw layers upon each other; every one has a value, or None, for each of the same steps."""
    number = max((len(values) for _, _, values in layers), default=0)
    step = (frame.end - frame.start) / max(number, 1)
    sums = [_sum(values[index] for _, _, values in layers) for index in range(number)]
    top = nice_top(max((value for value in sums if value is not None), default=0.0))
    edges = [frame.x(frame.start + index * step) for index in range(number + 1)]
    floor = [0.0] * number
    shapes = []
    for name, colour, values in layers:
        ceiling = [low + (value or 0.0) for low, value in zip(floor, values, strict=True)]
        path = "".join(
            _area(edges, floor, ceiling, run, top) for run in _runs(number, lambda i: sums[i])
        )
        shapes.append(Shape(name, colour, path))
        floor = ceiling
    return Chart(
        frame.title,
        frame.unit,
        tuple(shapes),
        tuple(_blanks(edges, sums)),
        tuple(_strips(frame, edges, step, layers, sums)),
        _marks(frame),
        tuple(x_ticks(frame.start, frame.end)),
        tuple(_y_ticks(top, frame)),
        filled=True,
        summary=frame.summary,
        legend=tuple((name, colour) for name, colour, _ in layers) if len(layers) > 1 else (),
    )


def lined(
    frame: Frame, name: str, colour: int, runs: Sequence[Sequence[tuple[float, int]]]
) -> Chart:
    """Draw a line of points, in runs that are not joined."""
    top = nice_top(max((value for run in runs for _, value in run), default=0))
    strips = [
        Strip(
            max(frame.x(at) - 4, 0.0),
            8.0,
            f"{format_timestamp(at)}: {frame.say(value)} {frame.unit}",
        )
        for run in runs
        for at, value in run
    ]
    return Chart(
        frame.title,
        frame.unit,
        (Shape(name, colour, "".join(_line(frame, run, top) for run in runs)),),
        tuple(_between(frame, runs)),
        tuple(strips),
        _marks(frame),
        tuple(x_ticks(frame.start, frame.end)),
        tuple(_y_ticks(top, frame)),
        filled=False,
        summary=frame.summary,
    )


def nice_top(most: float) -> float:
    """Return a round number that is not smaller: what the upper end of an axis says."""
    if most <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(most))
    return next(size * part for part in (1, 2, 2.5, 5, 10) if most <= size * part * (1 + 1e-9))


def x_ticks(start: float, end: float) -> Iterator[Tick]:
    """Place times of this host's clock: round ones, and days at midnight."""
    span = end - start
    offset = time.localtime(end).tm_gmtoff
    step = next((size for size in _TICK_STEPS if span / size <= _MOST_TICKS), 7 * 86_400)
    first = math.ceil((start + offset) / step)
    for number in range(first, math.floor((end + offset) / step) + 1):
        moment = number * step - offset
        # A day is named where it begins.
        midnight = number * step % 86_400 == 0
        form = "%b %d" if midnight else "%H:%M:%S" if step < 60 else "%H:%M"
        yield Tick(
            round(100 * (moment - start) / max(span, 1e-9), 2),
            time.strftime(form, time.localtime(moment)),
            minor=not midnight if step >= 21_600 and span > 86_400 else (number - first) % 2 == 1,
        )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _runs(number: int, value: Callable[[int], float | None]) -> Iterator[list[int]]:
    """Return the indices of steps that follow each other and of which something is known."""
    for known, group in groupby(range(number), key=lambda index: value(index) is not None):
        if known:
            yield list(group)


def _area(
    edges: Sequence[float],
    floor: Sequence[float],
    ceiling: Sequence[float],
    run: Sequence[int],
    top: float,
) -> str:
    words = [f"M{edges[run[0]]} {_y(floor[run[0]], top)}"]
    words += [f"V{_y(ceiling[index], top)}H{edges[index + 1]}" for index in run]
    words += [f"V{_y(floor[index], top)}H{edges[index]}" for index in reversed(run)]
    return "".join(words) + "Z"


def _line(frame: Frame, run: Sequence[tuple[float, int]], top: float) -> str:
    words = [f"{frame.x(at)} {_y(value, top)}" for at, value in run]
    if len(run) == 1:
        # A point alone would be invisible.
        words.append(f"{frame.x(run[0][0]) + 2} {_y(run[0][1], top)}")
    return "M" + "L".join(words)


def _y(value: float, top: float) -> float:
    return round(HEIGHT * (1 - value / top), 2)


def _blanks(edges: Sequence[float], sums: Values) -> Iterator[Strip]:
    missing = [None if value is not None else 0.0 for value in sums]
    for run in _runs(len(sums), lambda index: missing[index]):
        left, right = edges[run[0]], edges[run[-1] + 1]
        yield Strip(left, round(right - left, 2), "no readings")


def _between(frame: Frame, runs: Sequence[Sequence[tuple[float, int]]]) -> Iterator[Strip]:
    for one, other in pairwise(runs):
        left, right = frame.x(one[-1][0]), frame.x(other[0][0])
        yield Strip(left, round(right - left, 2), "no readings")


def _strips(
    frame: Frame,
    edges: Sequence[float],
    step: float,
    layers: Sequence[tuple[str, int, Values]],
    sums: Values,
) -> Iterator[Strip]:
    for index, total in enumerate(sums):
        if total is None:
            continue
        lines = [f"{format_timestamp(frame.start + index * step)}: {frame.say(total)} {frame.unit}"]
        shown = [(name, values[index]) for name, _, values in layers if values[index]]
        lines += [f"{name} {frame.say(value or 0.0)}" for name, value in shown if len(layers) > 1]
        width = round(edges[index + 1] - edges[index], 2)
        yield Strip(edges[index], width, "\n".join(lines))


def _marks(frame: Frame) -> tuple[Strip, ...]:
    return tuple(
        Strip(frame.x(at), 0.0, f"{format_timestamp(at)}: {text}")
        for at, text in frame.marks
        if frame.start <= at <= frame.end
    )


def _y_ticks(top: float, frame: Frame) -> Iterator[Tick]:
    for part in (0.0, 0.5, 1.0):
        yield Tick(100 * part, frame.say(top * part) if part else "0")
