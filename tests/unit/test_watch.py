"""The console of `verify --watch` is as large as the terminal, whatever a login has exported."""

from __future__ import annotations

import os

import pytest
from rich.console import Console, ConsoleDimensions

from sipfw.cli.watch import fit


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("COLUMNS", "33")
    monkeypatch.setenv("LINES", "11")
    return Console()


def _terminal(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int) -> None:
    size = os.terminal_size((columns, lines))
    monkeypatch.setattr(os, "get_terminal_size", lambda _: size)


def test_the_terminal_knows_its_size(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ((120, 40), (80, 24)):
        _terminal(monkeypatch, *size)
        fit(console)
        assert console.size == ConsoleDimensions(*size)


def test_a_serial_line_does_not(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    _terminal(monkeypatch, 0, 0)
    fit(console)
    assert console.size == ConsoleDimensions(33, 11)
