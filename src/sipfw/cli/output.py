"""Data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from sipfw.cli import machine
from sipfw.cli.screen import grid, screen_width, wrapped
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.diagnostics import Diagnostic


VERDICT_COLOURS = {
    "HEALTHY": "green",
    "DRIFT": "yellow",
    "DEGRADED": "red",
    "NOT ACTIVE": "red",
    "OUT OF SERVICE": "yellow",
    "PANIC": "magenta",
}


def say(text: str, end: str = "\n") -> None:
    """Print data. Raises BackendError where it cannot be written, on a full disk for example."""
    answer = machine.current()
    if answer is not None:
        answer.output.append(text + end)
        return
    try:
        click.echo(text + end, nl=False)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = (error.strerror or str(error)).lower()
        raise BackendError(f"standard output: cannot be written: {reason}") from error


def say_lines(lines: Iterable[str]) -> None:
    """Print a screen: lines that are too long for it break between words.

    A verdict at the beginning of a line is in colour where a terminal shows it. All is in the
    words: with NO_COLOR (no-color.org), in a pipe and on paper nothing is lost.
    """
    width = screen_width()
    for line in lines:
        first, *others = wrapped(line, width)
        verdict = line.partition(":")[0]
        colour = VERDICT_COLOURS.get(verdict)
        if colour and first.startswith(verdict) and not os.environ.get("NO_COLOR"):
            first = click.style(verdict, fg=colour, bold=True) + first[len(verdict) :]
        for part in (first, *others):
            say(part)


def wait_for(what: str) -> None:
    """Tell somebody at a terminal what takes so long; scripts and logs need no such line."""
    if sys.stderr.isatty():
        _to_stderr(f"{what} ...")


def complain(text: str) -> None:
    """Print a message about the data, or an error."""
    answer = machine.current()
    if answer is not None:
        answer.messages.append(text)
    _to_stderr(text)


def _to_stderr(text: str) -> None:
    width = screen_width(stderr=True)
    for line in text.split("\n"):
        for part in wrapped(line, width):
            click.echo(part, err=True)


def remark(diagnostics: Iterable[Diagnostic]) -> None:
    """Print warnings and notes."""
    for item in diagnostics:
        machine.heard(item)
        _to_stderr(str(item))


def say_json(value: object) -> None:
    """Print one JSON document."""
    say(json.dumps(value, indent=2, sort_keys=False))


def table(
    rows: Sequence[Sequence[str]], right: Iterable[int] = (), *, head: bool = True
) -> list[str]:
    """Align columns, as `table_rows`, and return the lines of all rows."""
    return [line for lines in table_rows(rows, right, head=head) for line in lines]


def table_rows(
    rows: Sequence[Sequence[str]], right: Iterable[int] = (), *, head: bool = True
) -> list[list[str]]:
    """Align columns to the width of the screen and return the lines of each row, see `grid`."""
    return grid(rows, right, head=head, width=screen_width())
