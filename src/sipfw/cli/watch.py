"""`--watch` of verify and top: looks again until `q`, and leaves the terminal as it was."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click
from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from sipfw.cli.watch_view import Screen
from sipfw.errors import BackendError, Exit
from sipfw.monitor.observe import observe
from sipfw.words import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from sipfw.monitor.observe import Subject
    from sipfw.monitor.reading import Reading
    from sipfw.monitor.selection import Selection

# How soon a key or a new size of the terminal is noticed, in seconds.
_PATIENCE = 0.2
_ENDING = frozenset({"q", "Q", "\x1b", "\x03", "\x04"})


class _Drawn(Protocol):
    """What is shown, in a terminal of a given size."""

    def render(self, size: ConsoleDimensions) -> RenderableType: ...


class _Lines:
    """A screen of plain lines below a title."""

    def __init__(self, title: str, interval: float) -> None:
        self._title, self._interval = title, interval
        self.lines: list[str] = ["sampling ..."]

    def render(self, size: ConsoleDimensions) -> RenderableType:
        text = Text(no_wrap=True, overflow="crop")
        text.append(self._title, "bold")
        text.append(f"  {format_timestamp(time.time())}  every {self._interval:g} s  q ends", "dim")
        for line in self.lines[: size.height - 1]:
            text.append(f"\n{line}")
        return text


def has_screen() -> bool:
    """Tell whether there is a terminal that can be drawn on and whose keys can be read."""
    console = Console()
    return console.is_terminal and sys.stdin.isatty() and not console.is_dumb_terminal


def on_screen(title: str, look: Callable[[], list[str]], interval: float) -> int:
    """Show the lines of one look after the other. The exit code is that of the last one."""
    console = Console()
    fit(console)
    screen = _Lines(title, interval)
    code: int = Exit.CLEAN
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            live.update(screen.render(console.size), refresh=True)
            try:
                screen.lines, code = look(), Exit.CLEAN
            except BackendError as error:
                screen.lines, code = str(error).split("\n"), error.exit_code
            live.update(screen.render(console.size), refresh=True)
            if _ended(live, screen, console, started + interval):
                return code


def run(subject: Subject, selection: Selection, interval: float) -> int:
    """Watch until the operator ends it. The exit code is that of the last look."""
    console = Console()
    fit(console)
    if not has_screen():
        raise click.UsageError(
            "--watch needs a terminal that can move its cursor; use --json or --brief in a script"
        )
    screen = Screen(selection, interval)
    code: int = Exit.CLEAN
    earlier: Reading | None = None
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            try:
                seen = observe(subject, earlier)
            except BackendError as error:
                screen.fail(str(error))
                code = error.exit_code
            else:
                earlier, code = seen.reading, seen.health.state
                screen.show(seen)
            live.update(screen.render(console.size), refresh=True)
            if _ended(live, screen, console, started + interval):
                return code


def fit(console: Console) -> None:
    """Make the console as large as the terminal; rich would rather believe an exported COLUMNS."""
    for stream in (sys.stdout, sys.stderr):
        try:
            size = os.get_terminal_size(stream.fileno())
        except (OSError, ValueError):
            continue
        # A serial line knows no size.
        if size.columns and size.lines:
            console.size = ConsoleDimensions(size.columns, size.lines)
            return


@contextmanager
def _keys() -> Iterator[None]:
    """Let single keys come through; whatever ends the watch, the terminal is put back."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _ended(live: Live, screen: _Drawn, console: Console, until: float) -> bool:
    """Wait for the next look; tell whether the operator wants to end. Follows a new size.

    Keys and the size are asked for at least once, also where a look takes longer than the interval.
    """
    size = console.size
    while True:
        left = until - time.monotonic()
        if _key_ends(max(0.0, min(left, _PATIENCE))):
            return True
        fit(console)
        if console.size != size:
            size = console.size
            live.update(screen.render(size), refresh=True)
        if left <= 0:
            return False


def _key_ends(patience: float) -> bool:
    try:
        ready, _, _ = select.select([sys.stdin], [], [], patience)
        # A terminal that is gone reads as its end.
        return bool(ready) and (
            not (key := os.read(sys.stdin.fileno(), 1)) or key.decode() in _ENDING
        )
    except KeyboardInterrupt:
        return True
    except (OSError, UnicodeDecodeError):
        return False
