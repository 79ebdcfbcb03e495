"""Lines and tables that fit the terminal: they break between words, never inside one.

Where nothing says how wide the screen is, as in a pipe, every line stays whole for grep.
"""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Between two columns.
_GAP = "  "
# Below what stands in front.
_HANGING = 2
_FOLDED = " " * 4
# A column of text is not made narrower than this, nor than its longest word.
_NARROW = 20
# What a cell holds where there is nothing to say.
_NOTHING = "-"
_NARROWEST_SCREEN = 20


def screen_width(*, stderr: bool = False) -> int | None:
    """Return how many columns the screen has, by COLUMNS or the terminal; None in a pipe."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told[:6]) > 0:
        return max(int(told[:6]), _NARROWEST_SCREEN)
    try:
        stream = sys.stderr if stderr else sys.stdout
        columns = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError, AttributeError):
        return None
    # A serial line knows no size.
    return max(columns, _NARROWEST_SCREEN) if columns else None


def wrapped(line: str, width: int | None) -> list[str]:
    """Break a line between words; what follows is indented a little more than its beginning."""
    if width is None or len(line) <= width:
        return [line]
    indent = min(len(line) - len(line.lstrip(" ")), width // 2)
    return [
        part.rstrip()
        for part in textwrap.wrap(
            line.strip(),
            width,
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + _HANGING),
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
            expand_tabs=False,
        )
    ]


def grid(
    rows: Sequence[Sequence[str]],
    right: Iterable[int] = (),
    *,
    head: bool = True,
    width: int | None = None,
) -> list[list[str]]:
    """Align columns and return the lines of each row; columns in `right` are numbers.

    Where a row has no room, its texts are wrapped in their columns, and where these would become
    too narrow, its last columns go below it. `head`: the first row says what the columns are.
    """
    if not rows:
        return []
    numbers = set(right)
    natural = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths = _fitted(rows, natural, numbers, width)
    if widths is not None:
        return [_cut(_aligned(row, widths, numbers), width) for row in rows]
    kept = _in_line(natural, width or 0)
    labels = rows[0][kept:] if head else [""] * len(rows[0][kept:])
    return [
        _cut(_folded(row, natural[:kept], numbers, labels, head=head and row is rows[0]), width)
        for row in rows
    ]


def _cut(lines: Iterable[str], width: int | None) -> list[str]:
    return [part for line in lines for part in wrapped(line, width)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _fitted(
    rows: Sequence[Sequence[str]], natural: list[int], numbers: set[int], width: int | None
) -> list[int] | None:
    """Return how wide each column is, None where texts would become too narrow."""
    if width is None or _total(natural) <= width:
        return natural
    least = list(natural)
    for column, size in enumerate(natural):
        if column not in numbers:
            words = (word for row in rows for word in row[column].split())
            longest = max(map(len, words), default=0)
            least[column] = min(size, max(longest, _NARROW))
    if _total(least) > width:
        return None
    widths = list(natural)
    while _total(widths) > width:
        widest = max(range(len(widths)), key=lambda n: (widths[n] > least[n], widths[n]))
        widths[widest] -= 1
    return widths


def _aligned(row: Sequence[str], widths: Sequence[int], numbers: set[int]) -> Iterator[str]:
    """Yield the lines of a row, texts wrapped in their columns."""
    cells = [
        [cell] if len(cell) <= size else wrapped_cell(cell, size)
        for cell, size in zip(row, widths, strict=True)
    ]
    for number in range(max(map(len, cells))):
        parts = [lines[number] if number < len(lines) else "" for lines in cells]
        yield _joined(parts, widths, numbers)


def wrapped_cell(cell: str, size: int) -> list[str]:
    """Break the text of a cell between words."""
    found = textwrap.wrap(cell, max(size, 1), break_long_words=False, break_on_hyphens=False)
    return found or [""]


def _joined(cells: Sequence[str], widths: Sequence[int], numbers: set[int]) -> str:
    return _GAP.join(
        cell.rjust(size) if column in numbers else cell.ljust(size)
        for column, (cell, size) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def _in_line(natural: Sequence[int], width: int) -> int:
    """Return how many columns have room beside each other, at least one."""
    fitting = [n for n in range(1, len(natural)) if _total(natural[:n]) <= width]
    return max(fitting, default=1)


def _folded(
    row: Sequence[str],
    widths: Sequence[int],
    numbers: set[int],
    labels: Sequence[str],
    *,
    head: bool,
) -> Iterator[str]:
    """Yield what has room in a line, and below it the rest with what it is."""
    kept = len(widths)
    first = _joined(row[:kept], widths, numbers)
    if first.strip():
        yield first
    rest = [
        f"{label}: {cell}" if label else cell
        for label, cell in zip(labels, row[kept:], strict=True)
        if cell and not (label and cell == _NOTHING)
    ]
    if rest and not head:
        yield _FOLDED + ("; " if any(labels) else _GAP).join(rest)
