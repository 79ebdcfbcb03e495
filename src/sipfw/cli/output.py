"""Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.diagnostics import Diagnostic


def say(text: str) -> None:
    """Print data."""
    click.echo(text)


def complain(text: str) -> None:
    """Print a message about the data, or an error."""
    click.echo(text, err=True)


def remark(diagnostics: Iterable[Diagnostic]) -> None:
    """Print warnings and notes."""
    for item in diagnostics:
        complain(str(item))


def say_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, sort_keys=False))


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Align columns; those in `right` are numbers. The last column is never padded."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numbers = set(right)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
