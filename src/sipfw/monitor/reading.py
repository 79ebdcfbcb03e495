"""One look at the counters, to be kept, and what has grown since an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - an annotation that is read
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sipfw.lower.xtables import Family
from sipfw.monitor.summary import summarise
from sipfw.plain_data import from_plain, to_plain

if TYPE_CHECKING:
    from sipfw.monitor.report import Report

FORMAT = 1

# Family, chain and rule id.
Key: TypeAlias = tuple[Family, str, str]
Counts: TypeAlias = "Mapping[Key, tuple[int, int]]"


@dataclass(frozen=True, slots=True)
class LayerCount:
    """Packets that one layer dropped and let through since its counters were at nought."""

    dropped: int
    dropped_bytes: int
    passed: int
    passed_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment. `taken` is in seconds since 1970 by this host's clock.

    `boot` names the run of the kernel: after another boot every counter has begun again. Rules that
    have counted nothing are left out.
    """

    taken: float
    boot: str
    generation: int | None
    rules: Counts
    layers: Mapping[str, LayerCount]
    sets: Mapping[str, int]
    connections: int | None
    connections_limit: int | None
    drift: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What was counted between two readings, `seconds` apart.

    `reset` counts the rules whose counter was lower than before: it had been set back, so what it
    shows was counted since then.
    """

    seconds: float
    rules: Counts
    reset: int


def make_reading(report: Report, *, taken: float, boot: str, generation: int | None) -> Reading:
    """Take down what a report counted."""
    rules: dict[Key, tuple[int, int]] = {}
    for rule in report.rules:
        for family, count in rule.counts.items():
            if count is not None and count.packets:
                rules[family, rule.chain, rule.id] = (count.packets, count.bytes)
    return Reading(
        taken,
        boot,
        generation,
        rules,
        {
            item.layer: LayerCount(item.dropped, item.dropped_bytes, item.passed, item.passed_bytes)
            for item in summarise(report.rules)
        },
        {item.name: item.entries for item in report.sets if item.entries is not None},
        report.conntrack.count,
        report.conntrack.limit,
        len(report.drift),
    )


def growth(earlier: Reading, now: Reading) -> Growth:
    """Return what was counted since `earlier`."""
    before = earlier.rules if earlier.boot == now.boot else {}
    rules: dict[Key, tuple[int, int]] = {}
    reset = 0
    for key, (packets, size) in now.rules.items():
        old_packets, old_size = before.get(key, (0, 0))
        if packets < old_packets:
            reset += 1
            old_packets = old_size = 0
        rules[key] = (packets - old_packets, max(size - old_size, 0))
    reset += sum(key not in now.rules for key in before)
    return Growth(max(now.taken - earlier.taken, 0.0), rules, reset)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A reading as its file has it: short, since a thousand are kept."""

    format: int
    taken: float
    boot: str
    generation: int | None
    rules: tuple[tuple[Family, str, str, int, int], ...]
    layers: Mapping[str, tuple[int, int, int, int]]
    sets: Mapping[str, int]
    connections: int | None
    connections_limit: int | None
    drift: int


def to_text(reading: Reading) -> str:
    """Return the reading for a file."""
    stored = _Stored(
        FORMAT,
        reading.taken,
        reading.boot,
        reading.generation,
        tuple((*key, *count) for key, count in reading.rules.items()),
        {
            name: (item.dropped, item.dropped_bytes, item.passed, item.passed_bytes)
            for name, item in reading.layers.items()
        },
        reading.sets,
        reading.connections,
        reading.connections_limit,
        reading.drift,
    )
    return json.dumps(to_plain(stored), separators=(",", ":")) + "\n"


def from_text(text: str) -> Reading:
    """Read what `to_text` wrote. Raises ValueError for anything else."""
    try:
        found = from_plain(json.loads(text), _Stored)
    except RecursionError as error:
        raise ValueError("not a reading of sipfw") from error
    if found.format != FORMAT:
        raise ValueError("a reading of another version")
    return Reading(
        float(found.taken),
        found.boot,
        found.generation,
        {
            (family, chain, rule): (packets, size)
            for family, chain, rule, packets, size in found.rules
        },
        {name: LayerCount(*counts) for name, counts in found.layers.items()},
        found.sets,
        found.connections,
        found.connections_limit,
        found.drift,
    )
