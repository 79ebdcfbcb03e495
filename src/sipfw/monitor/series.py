"""Kept readings as figures over time: what each layer did per second, and when nobody looked.

What was counted between two readings is spread evenly over that time. Where they are too far apart
for that to say anything, there is a gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Literal, TypeAlias

from sipfw.monitor.reading import growth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sipfw.monitor.reading import Reading
    from sipfw.monitor.report import RuleReport

# Layer and action of a rule, by chain and id.
Kinds: TypeAlias = "Mapping[tuple[str, str], tuple[str, str]]"
Values: TypeAlias = "tuple[float | None, ...]"

# Readings are thinned out with age (look/readings.py): this is how far apart old ones stand.
_APART = ((0.0, 300.0), (7200.0, 600.0), (172_800.0, 3600.0))
_GAP = 3.0
_STEPS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_MOST_STEPS = 120


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without readings; `dropped` packets were counted meanwhile, nobody knows when."""

    start: float
    end: float
    dropped: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to the counters, seen at this moment."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Series:
    """Packets per second by layer in steps of equal length, None where nobody looked.

    `start` and `end` are those of the steps, `first` and `last` of the readings.
    `counted` is how many packets each layer dropped in all that time, gaps included.
    `connections` are the tracked connections in runs that no gap divides.
    """

    start: float
    end: float
    step: float
    first: float
    last: float
    dropped: Mapping[str, Values]
    passed: Mapping[str, Values]
    counted: Mapping[str, int]
    connections: tuple[tuple[tuple[float, int], ...], ...]
    gaps: tuple[Gap, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two readings: what each layer dropped and let through between them."""

    start: float
    end: float
    dropped: Mapping[str, int]
    passed: Mapping[str, int]
    gap: bool


def kinds_of(rules: Iterable[RuleReport]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return layer and action of each rule."""
    return {(rule.chain, rule.id): (rule.layer, rule.action) for rule in rules}


def make_series(readings: Sequence[Reading], kinds: Kinds) -> Series | None:
    """Make figures of readings, oldest first; None where there is nothing to compare.

    `kinds` tells which rules drop, for readings between which some counters were set back.
    """
    usable = _in_order(readings)
    if len(usable) < 2:
        return None
    pairs = _pairs(usable, kinds)
    first, last = usable[0].taken, usable[-1].taken
    step = step_for(last - first)
    grid = _Grid(math.floor(first / step) * step, step, first, last)
    return Series(
        grid.start,
        grid.end,
        step,
        first,
        last,
        {name: grid.rates(pairs, "dropped", name) for name in _names(pairs, "dropped")},
        {name: grid.rates(pairs, "passed", name) for name in _names(pairs, "passed")},
        {
            name: sum(pair.dropped.get(name, 0) for pair in pairs)
            for name in _names(pairs, "dropped")
        },
        tuple(_connections(usable, {pair.end for pair in pairs if pair.gap}, step)),
        tuple(Gap(pair.start, pair.end, sum(pair.dropped.values())) for pair in pairs if pair.gap),
        tuple(_marks(usable)),
    )


def step_for(seconds: float) -> float:
    """Return the shortest step that divides so long a time into few enough parts."""
    return float(next((step for step in _STEPS if seconds / step < _MOST_STEPS), _STEPS[-1]))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Steps of equal length over the time from the first reading to the last one."""

    start: float
    step: float
    first: float
    last: float

    @property
    def number(self) -> int:
        return max(math.ceil((self.last - self.start) / self.step), 1)

    @property
    def end(self) -> float:
        return self.start + self.number * self.step

    def rates(
        self, pairs: Sequence[_Pair], what: Literal["dropped", "passed"], name: str
    ) -> Values:
        """Return packets per second for each step of which at least half was looked at."""
        packets, looked = [0.0] * self.number, [0.0] * self.number
        for pair in pairs:
            if pair.gap:
                continue
            count = (pair.dropped if what == "dropped" else pair.passed).get(name, 0)
            for index, seconds in self._parts(pair.start, pair.end):
                packets[index] += count * seconds / (pair.end - pair.start)
                looked[index] += seconds
        there = dict(self._parts(self.first, self.last))
        return tuple(
            packets[index] / looked[index]
            if looked[index] and looked[index] >= there.get(index, 0.0) / 2
            else None
            for index in range(self.number)
        )

    def _parts(self, start: float, end: float) -> Iterator[tuple[int, float]]:
        """Say how many seconds of this time lie in which step."""
        begin = max(int((start - self.start) // self.step), 0)
        for index in range(begin, self.number):
            left = self.start + index * self.step
            if left >= end:
                return
            yield index, min(end, left + self.step) - max(start, left)


def _in_order(readings: Sequence[Reading]) -> list[Reading]:
    """Leave out what a clock that was set back would put before its predecessor."""
    found: list[Reading] = []
    for reading in sorted(readings, key=lambda item: item.taken):
        if not found or reading.taken > found[-1].taken:
            found.append(reading)
    return found


def _pairs(readings: Sequence[Reading], kinds: Kinds) -> list[_Pair]:
    now = readings[-1].taken
    longest = _longest(readings)
    found = []
    for earlier, later in pairwise(readings):
        gap = later.taken - earlier.taken > longest[_age_class(now - earlier.taken)]
        dropped, passed = counted_between(earlier, later, kinds)
        found.append(_Pair(earlier.taken, later.taken, dropped, passed, gap))
    return found


def _longest(readings: Sequence[Reading]) -> list[float]:
    """Return from which distance on readings of each age have a gap between them.

    It follows how often somebody looks: once an hour is no gap where that is usual.
    """
    now = readings[-1].taken
    distances: list[list[float]] = [[] for _ in _APART]
    for earlier, later in pairwise(readings):
        distances[_age_class(now - earlier.taken)].append(later.taken - earlier.taken)
    usual = median(distance for part in distances for distance in part)
    return [
        _GAP * max(thinned, usual, median(part) if len(part) > 2 else 0.0)
        for (_, thinned), part in zip(_APART, distances, strict=True)
    ]


def _age_class(age: float) -> int:
    return max(index for index, (oldest, _) in enumerate(_APART) if age >= oldest)


def counted_between(
    earlier: Reading, later: Reading, kinds: Kinds
) -> tuple[dict[str, int], dict[str, int]]:
    """Return what each layer dropped and let through between two readings.

    Layers are subtracted while nothing was set back: that holds for rules that are gone by now as
    well. Otherwise it goes rule by rule, and only a rule that `kinds` knows is counted.
    """
    grown = growth(earlier, later)
    if earlier.boot != later.boot:
        return (
            {name: item.dropped for name, item in later.layers.items()},
            {name: item.passed for name, item in later.layers.items()},
        )
    dropped, passed = dict.fromkeys(later.layers, 0), dict.fromkeys(later.layers, 0)
    if grown.reset:
        for (_, chain, rule), (packets, _) in grown.rules.items():
            layer, action = kinds.get((chain, rule), ("", ""))
            if action in {"drop", "pass"}:
                counted = dropped if action == "drop" else passed
                counted[layer] = counted.get(layer, 0) + packets
        return dropped, passed
    for name, item in later.layers.items():
        before = earlier.layers.get(name)
        dropped[name] = max(item.dropped - (before.dropped if before else 0), 0)
        passed[name] = max(item.passed - (before.passed if before else 0), 0)
    return dropped, passed


def _names(pairs: Iterable[_Pair], what: Literal["dropped", "passed"]) -> list[str]:
    """Return the layers of all pairs, the newest ones' order first."""
    names: dict[str, None] = {}
    for pair in reversed(list(pairs)):
        names.update(dict.fromkeys(pair.dropped if what == "dropped" else pair.passed))
    return list(names)


def _connections(
    readings: Sequence[Reading], after_gap: set[float], step: float
) -> Iterator[tuple[tuple[float, int], ...]]:
    """Return runs of the largest number in each step, at the moment when it was seen."""
    run: list[tuple[float, int]] = []
    for reading in readings:
        if (reading.taken in after_gap or reading.connections is None) and run:
            yield tuple(run)
            run = []
        if reading.connections is None:
            continue
        point = (reading.taken, reading.connections)
        if run and run[-1][0] // step == point[0] // step:
            run[-1] = max(run[-1], point, key=lambda item: item[1])
        else:
            run.append(point)
    if run:
        yield tuple(run)


def _marks(readings: Sequence[Reading]) -> Iterator[Mark]:
    for earlier, later in pairwise(readings):
        if earlier.boot != later.boot:
            yield Mark(later.taken, "the host was started again")
        elif earlier.generation != later.generation:
            yield Mark(later.taken, f"generation {later.generation} went live")
        elif (reset := growth(earlier, later).reset) > 0:
            what = "a counter" if reset == 1 else f"{reset:,} counters"
            yield Mark(later.taken, f"{what} had been set back")
