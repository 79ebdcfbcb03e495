"""Measuring cells: rounds over all classes and setups, interleaved so that noise hits all alike."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from stage import Stage
from xdp import Injector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from setups import Setup

    from packets import PacketClass

# Floods last longer than a second: the burst of the cap on all unknown sources (1000) and of every
# bucket is spent before the clock starts.
_WARM_UP = 4096
# After which a phone repeats what was not answered (RFC 3261, 17.1.2.2).
_T1 = 0.5
# Of the second that a row with a rate takes.
_SLICES = 100


@dataclass(slots=True)
class Cell:
    """One class under one setup: CPU time per packet of every round, and what became of them."""

    cpu_ns: list[float] = field(default_factory=list)
    sent: int = 0
    delivered: int = 0
    tracked: int = 0

    @property
    def typical(self) -> float:
        """Return the median of the rounds."""
        return median(self.cpu_ns)


Cells = dict[tuple[str, str], Cell]


class Theatre:
    """All stages at once, one per setup, so that a round needs no reloading."""

    def __init__(self, setups: Sequence[Setup], folder: Path) -> None:
        self._stack = ExitStack()
        self.stages: dict[str, Stage] = {}
        try:
            for setup in setups:
                stage = Stage(folder)
                self._stack.callback(stage.close)
                setup.load(stage)
                self.stages[setup.name] = stage
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove every stage."""
        self._stack.close()


def measure(
    stages: Mapping[str, Stage],
    classes: Sequence[PacketClass],
    *,
    rounds: int,
    packets: int,
    progress: Callable[[str], object],
) -> Cells:
    """Return a cell for every class and setup."""
    cells: Cells = defaultdict(Cell)
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for row in classes:
            for name in _turned(list(stages), number):
                _play(stages[name], row, packets, cells[row.name, name])
    return cells


def _turned(names: list[str], by: int) -> Iterator[str]:
    """Begin each round with another setup: the first pays for a cold cache."""
    start = by % len(names)
    return iter(names[start:] + names[:start])


def _play(stage: Stage, row: PacketClass, packets: int, cell: Cell) -> None:
    # Where a row has more sources than one round, each round has others.
    start = random.getrandbits(32)
    frame = row.frame(stage.hardware_address)
    if row.repeated:
        with Injector(frame, row.sources, start) as injector, stage.inside():
            injector.run(stage.interface_index, _WARM_UP + packets)
        time.sleep(_T1)
    with Injector(frame, row.sources, start) as injector:
        with stage.inside():
            injector.run(stage.interface_index, _WARM_UP)
        if row.answered:
            stage.answer(row)
        received, delivered = stage.received()
        sent = packets if row.rate is None else row.rate
        with stage.inside():
            cpu_ns = _inject(injector, stage, sent, row.rate)
        received_after, delivered_after = stage.received()
    cell.cpu_ns.append(cpu_ns / sent)
    cell.sent += received_after - received
    cell.delivered += delivered_after - delivered
    cell.tracked = stage.tracked()
    if cell.tracked:
        stage.forget_connections()
    if received_after - received != sent:
        raise RuntimeError(f"{row.name}: {received_after - received} of {sent} came in intact")


def _inject(injector: Injector, stage: Stage, packets: int, rate: int | None) -> int:
    """Return the CPU time of it; with a rate, each call's own share is in it as well."""
    if rate is None:
        return injector.run(stage.interface_index, packets).cpu_ns
    cpu_ns, each = 0, rate // _SLICES
    began = time.monotonic()
    for number in range(_SLICES):
        time.sleep(max(0.0, began + number / _SLICES - time.monotonic()))
        cpu_ns += injector.run(stage.interface_index, each).cpu_ns
    return cpu_ns
