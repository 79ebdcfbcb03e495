"""Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.diagnostics import Diagnostic


def say(text: str, end: str = "\n") -> None:
    """Print data. Raises BackendError where it cannot be written, on a full disk for example."""
    try:
        click.echo(text + end, nl=False)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = (error.strerror or str(error)).lower()
        raise BackendError(f"standard output: cannot be written: {reason}") from error


def complain(text: str) -> None:
    """Print a message about the data, or an error."""
    click.echo(text, err=True)


def remark(diagnostics: Iterable[Diagnostic]) -> None:
    """Print warnings and notes."""
    for item in diagnostics:
        complain(str(item))


def say_json(value: object) -> None:
    """Print one JSON document."""
    say(json.dumps(value, indent=2, sort_keys=False))


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
