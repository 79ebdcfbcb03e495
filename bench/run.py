"""The benchmark's command line and its parts."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import asking
import growth
import loading
import reapply
from measure import Cell, Theatre, measure
from setups import COMPARED, DROP_ALL, GUIDE, against, setups
from tables import nanoseconds, outcomes, pairs, ratios, table

from lab import namespaces
from packets import packet_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure; every loop of the benchmark is bounded by these numbers."""

    rounds: int
    packets: int
    sizes: tuple[int, ...]


FULL = Effort(rounds=9, packets=65536, sizes=(10, 1_000, 100_000))
QUICK = Effort(rounds=2, packets=16384, sizes=(10, 1_000))

# What a look has to go through: rules, and members of each set.
_RULES, _MEMBERS = 2_000, 10_000


def main(argv: Sequence[str]) -> int:
    """Run the wanted parts; return an exit code."""
    options = _options(argv)
    reason = namespaces.unavailable_reason()
    if reason is not None:
        return _complain(f"bench: {reason}")
    namespaces.sweep()
    # One core: the cost is CPU time of the thread that injects, and caches should stay warm.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = Effort(options.rounds, effort.packets, effort.sizes)
    with tempfile.TemporaryDirectory(prefix="sipfw-bench-") as folder:
        for name in options.only or _PARTS:
            _PARTS[name](effort, Path(folder), options.against)
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py", description="What sipfw costs.")
    parser.add_argument("--quick", action="store_true", help="a smoke test in half a minute")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="measure another checkout's rules beside"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds per cell")
    parser.add_argument(
        "--only", action="append", choices=[*_PARTS], help="measure this part only; repeatable"
    )
    return parser.parse_args(argv)


def _packets(effort: Effort, folder: Path, other: Path | None) -> None:
    columns, rows = setups(), packet_classes()
    if other is not None:
        columns = (*columns, *against(other.resolve()))
    with closing(Theatre(columns, folder)) as theatre:
        cells = measure(
            theatre.stages,
            rows,
            rounds=effort.rounds,
            packets=effort.packets,
            progress=_complain,
        )
    names = [setup.name for setup in columns]
    titles = [row.name for row in rows]
    _print(f"CPU ns per packet, median of {effort.rounds} rounds (best round)")
    _print(nanoseconds(cells, titles, names))
    for reference in (DROP_ALL, GUIDE):
        _print(f'times the cost of "{reference}", median of the rounds\' ratios')
        _print(ratios(cells, titles, [name for name in names if name != reference], reference))
    if other is not None:
        _print("times the cost of the other checkout's rules, median of the rounds' ratios")
        _print(pairs(cells, titles, COMPARED))
    _print(f"of {effort.packets} packets a round: delivered / connections left")
    _print(outcomes(cells, titles, names))


def _growth(effort: Effort, folder: Path, _other: Path | None) -> None:
    found = growth.measure_growth(effort.sizes, effort.rounds, effort.packets, folder, _complain)
    _print("CPU ns per packet by entries in the trusted and in the banned set (best round)")
    rows = [[name, *map(_cell, cells)] for name, cells in found.items()]
    _print(table(["packet", *growth.headings(effort.sizes)], rows))


def _cell(cell: Cell) -> str:
    return f"{cell.typical:.0f} ({min(cell.cpu_ns):.0f})"


def _loading(effort: Effort, folder: Path, _other: Path | None) -> None:
    _print("seconds to load and verify, iptables backend")
    _print(
        table(
            ["entries", *loading.STEPS],
            [[f"{size:,}", *_seconds(size, folder)] for size in effort.sizes],
        )
    )


def _seconds(size: int, folder: Path) -> list[str]:
    _complain(f"loading {size} peers and {size} bans")
    return [f"{seconds:.2f}" for seconds in loading.measure_loading(size, folder)]


def _looks(effort: Effort, folder: Path, _other: Path | None) -> None:
    found = asking.measure_asking(_RULES, _MEMBERS, effort.rounds, folder, _complain)
    _print(
        f"seconds a look takes, {_RULES:,} rules, {_MEMBERS:,} banned and learned "
        f"each, median of {effort.rounds}"
    )
    rows = [[name, *(f"{each:.2f}" for each in seconds)] for name, seconds in found.items()]
    _print(table(["look", *asking.BACKENDS], rows))


def _reapply(effort: Effort, folder: Path, other: Path | None) -> None:
    here = Path(__file__).resolve().parents[1]
    checkouts = {"this": here} if other is None else {"this": here, "other": other.resolve()}
    found = reapply.measure_reapply(checkouts, effort.rounds, folder, _complain)
    _print(f"seconds to apply an unchanged policy again, median of {effort.rounds}")
    rows = []
    for backend, versions in found.items():
        for what, of in (("elapsed", attrgetter("elapsed")), ("of CPU", attrgetter("cpu"))):
            middles = [median(map(of, costs)) for costs in versions.values()]
            more = [f"{middles[-1] / middles[0]:.2f}"] if other is not None else []
            rows.append([f"{backend}, {what}", *(f"{middle:.2f}" for middle in middles), *more])
    _print(table(["backend", *checkouts, *(["other / this"] if other is not None else [])], rows))


_PARTS: dict[str, Callable[[Effort, Path, Path | None], None]] = {
    "packets": _packets,
    "growth": _growth,
    "loading": _loading,
    "looks": _looks,
    "reapply": _reapply,
}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n\n")
    sys.stdout.flush()


def _complain(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 1
