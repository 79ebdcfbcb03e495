"""Cells as Markdown tables."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from measure import Cell, Cells


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    ruler = ["---", *("---:" for _ in headings[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, ruler, *rows])


def _grid(titles: Sequence[str], names: Sequence[str], cell: Callable[[str, str], str]) -> str:
    return table(
        ["packet", *names], [[title, *(cell(title, name) for name in names)] for title in titles]
    )


def nanoseconds(cells: Cells, titles: Sequence[str], names: Sequence[str]) -> str:
    """Return the medians, and the best round, which other load on the machine disturbs least."""

    def text(title: str, name: str) -> str:
        cell = cells[title, name]
        return f"{cell.typical:.0f} ({min(cell.cpu_ns):.0f})"

    return _grid(titles, names, text)


def ratios(cells: Cells, titles: Sequence[str], names: Sequence[str], reference: str) -> str:
    """Return each cell's cost in units of the same row's `reference`."""

    def text(title: str, name: str) -> str:
        return f"{_ratio(cells[title, name], cells[title, reference]):.2f}"

    return _grid(titles, names, text)


def pairs(cells: Cells, titles: Sequence[str], compared: Mapping[str, str]) -> str:
    """Return what each column costs in units of the one that it is compared with."""

    def text(title: str, name: str) -> str:
        return f"{_ratio(cells[title, name], cells[title, compared[name]]):.2f}"

    return _grid(titles, list(compared), text)


def _ratio(cell: Cell, reference: Cell) -> float:
    # Round by round: what disturbs the machine for seconds disturbs both.
    return median(a / b for a, b in zip(cell.cpu_ns, reference.cpu_ns, strict=True))


def outcomes(cells: Cells, titles: Sequence[str], names: Sequence[str]) -> str:
    """Return what the packets left behind."""

    def text(title: str, name: str) -> str:
        cell = cells[title, name]
        return f"{cell.delivered // len(cell.cpu_ns)} / {cell.tracked}"

    return _grid(titles, names, text)
