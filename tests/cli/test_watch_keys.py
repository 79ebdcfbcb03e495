"""`verify --watch` between two looks, also where a look takes longer than the interval."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest
from rich.console import Console, ConsoleDimensions
from rich.live import Live

from sipfw.cli import watch
from sipfw.cli.watch_view import Screen
from sipfw.monitor.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

LATE = 5.0


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A standard input of its own; the handle is where keys are written."""
    reads, writes = os.pipe()
    with os.fdopen(reads) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writes
        os.close(writes)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120, height=40)


def ended(console: Console, until: float) -> bool:
    screen = Screen(Selection(), 0.5)
    screen.fail("nothing was looked at")
    live = Live(console=console, auto_refresh=False)
    return watch._ended(live, screen, console, until)


def test_a_key_is_heard_after_a_slow_look(keyboard: int, console: Console) -> None:
    os.write(keyboard, b"q")
    assert ended(console, time.monotonic() - LATE)


@pytest.mark.usefixtures("keyboard")
def test_without_a_key_a_slow_look_is_followed_by_the_next(console: Console) -> None:
    assert not ended(console, time.monotonic() - LATE)


@pytest.mark.usefixtures("keyboard")
def test_a_new_size_is_followed_after_a_slow_look(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dragged(made: Console) -> None:
        made.size = ConsoleDimensions(80, 24)

    monkeypatch.setattr(watch, "fit", dragged)
    assert not ended(console, time.monotonic() - LATE)
    assert (console.width, console.height) == (80, 24)
