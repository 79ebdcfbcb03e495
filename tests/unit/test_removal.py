"""What a removal and an opening rollback ask and leave, and how the next apply takes it up."""

from __future__ import annotations

import importlib
import io
import stat
import sys
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from test_dummy_backend import KERNEL, host
from test_same_again import Operator, operator

from sipfw.deploy.archive import KEPT, newest, take_up
from sipfw.deploy.generations import list_generations
from sipfw.deploy.manual_list import Book, ManualEntry, read_page, write_page
from sipfw.errors import BackendError, Exit
from sipfw.host.files import Layout

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["host", "operator"]

_POLICY = """\
profile: wholesale
trusted_peers: [{name: carrier-a, signalling: [203.0.113.10]}]
"""
_BANNED = ip_address("198.51.100.66")


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return what sets the operator's answer at a terminal, which `apply` does not see."""
    # Imported later, it would keep what is patched here.
    importlib.import_module("sipfw.cli.preview")
    monkeypatch.setattr("sipfw.cli.ask.at_terminal", lambda: True)
    monkeypatch.setattr("sipfw.cli.unban.at_terminal", lambda: True)
    monkeypatch.setattr("sipfw.deploy.overtaken.process_started", time.time)
    return monkeypatch


def _ban(operator: Operator, book: Book = Book.BANS, *, left: int = 3600) -> None:
    now = int(time.time())
    entry = ManualEntry(_BANNED, now - 10, now + left, "toll fraud", "alice")
    write_page(operator.layout, book, {_BANNED: entry})


def _numbers(operator: Operator) -> list[int]:
    return [item.number for item in list_generations(operator.layout)]


def test_remove_asks_and_says_what_is_lost(operator: Operator, answer: pytest.MonkeyPatch) -> None:
    operator.apply(_POLICY, "--yes")
    _ban(operator)
    _ban(operator, Book.TRUSTS)
    answer.setattr(sys, "stdin", io.StringIO("n\n"))
    ran = operator.run("remove", code=Exit.DIFFERENT)
    assert KERNEL
    assert "1 generation and 1 ban by hand go into an archive" in ran.stderr
    assert "1 temporary trust ends" in ran.stderr
    assert ran.stderr.endswith("remove the firewall? [y/N] nothing was changed\n")
    answer.setattr(sys, "stdin", io.StringIO("y\n"))
    operator.run("remove")
    assert not KERNEL


def test_without_a_terminal_and_with_yes_nobody_is_asked(
    operator: Operator, answer: pytest.MonkeyPatch
) -> None:
    operator.apply(_POLICY, "--yes")
    answer.setattr(sys, "stdin", io.StringIO(""))
    assert "[y/N]" not in operator.run("remove", "--yes").stderr
    answer.setattr("sipfw.cli.ask.at_terminal", lambda: False)
    operator.apply(_POLICY, "--yes")
    assert "[y/N]" not in operator.run("remove").stderr
    assert not KERNEL


def test_an_archive_is_taken_up_again(operator: Operator) -> None:
    operator.apply()
    operator.apply(_POLICY + "bans: {duration: 2h}\n")
    _ban(operator)
    ran = operator.run("remove")
    assert not operator.layout.state.exists()
    folder = operator.layout.removed / "1"
    assert f"archived in {folder}: 2 generations and 1 ban by hand; " in ran.stderr
    modes = {path.stat().st_mode for path in (operator.layout.removed, *folder.rglob("*"))}
    assert not any(stat.S_IMODE(mode) & 0o077 for mode in modes)
    ran = operator.apply(_POLICY, "--take-up")
    assert "taken up: 2 generations, 1 ban by hand" in ran.stderr
    assert _numbers(operator) == [1, 2, 3]
    assert read_page(operator.layout, Book.BANS).entries[_BANNED].reason == "toll fraud"
    assert not operator.layout.removed.exists()


def test_it_is_not_taken_up_unasked_nor_by_a_dry_run(operator: Operator) -> None:
    operator.apply()
    _ban(operator)
    operator.run("remove")
    operator.apply(_POLICY, "--take-up", "--dry-run")
    assert "--take-up brings them back" in operator.apply(_POLICY).stderr
    assert _numbers(operator) == [1]
    assert read_page(operator.layout, Book.BANS).entries == {}
    with pytest.raises(BackendError, match="a firewall of sipfw is in force"):
        take_up(operator.layout)
    assert newest(operator.layout) is not None


def test_what_has_expired_in_the_archive_stays_away(operator: Operator) -> None:
    operator.apply()
    _ban(operator, left=1)
    operator.run("remove")
    time.sleep(1.1)
    assert "1 generation, 0 bans by hand" in operator.apply(_POLICY, "--take-up").stderr


def test_trust_is_not_archived(operator: Operator) -> None:
    operator.apply()
    _ban(operator, Book.TRUSTS)
    operator.run("remove")
    operator.apply(_POLICY, "--take-up")
    assert read_page(operator.layout, Book.TRUSTS).entries == {}


def test_purge_leaves_none_and_takes_older_ones(operator: Operator) -> None:
    operator.apply()
    operator.run("remove")
    operator.apply()
    assert "archived" not in operator.run("remove", "--purge").stderr
    assert not operator.layout.removed.exists()


def test_only_a_few_archives_are_kept(operator: Operator) -> None:
    for _ in range(KEPT + 2):
        operator.apply()
        operator.run("remove")
    kept = sorted(path.name for path in operator.layout.removed.iterdir())
    assert kept == ["3", "4", "5"]


def test_nothing_to_archive_makes_none(tmp_path: Path) -> None:
    assert newest(Layout(tmp_path)) is None
    assert take_up(Layout(tmp_path)) is None


def test_a_rollback_that_opens_the_host_asks(
    operator: Operator, answer: pytest.MonkeyPatch
) -> None:
    operator.apply(_POLICY, "--yes")
    _ban(operator)
    answer.setattr(sys, "stdin", io.StringIO("\n"))
    ran = operator.run("rollback", code=Exit.DIFFERENT)
    assert ran.stderr.startswith("from generation 1 to no firewall:\n")
    assert "SIP is unguarded then" in ran.stderr
    assert "1 ban by hand would be lost" in ran.stderr
    assert KERNEL
    answer.setattr(sys, "stdin", io.StringIO(""))
    operator.run("rollback", "--yes")
    assert not KERNEL


def test_a_rollback_to_a_firewall_asks_nothing(
    operator: Operator, answer: pytest.MonkeyPatch
) -> None:
    operator.apply(_POLICY, "--yes")
    operator.apply(_POLICY + "bans: {duration: 2h}\n", "--yes")
    answer.setattr(sys, "stdin", io.StringIO(""))
    assert "[y/N]" not in operator.run("rollback").stderr
    assert operator.live() == 1


@pytest.mark.parametrize("reply", ["n\n", "y\n"])
def test_unban_all_asks(operator: Operator, answer: pytest.MonkeyPatch, reply: str) -> None:
    from sipfw.manual.bans import ActiveBans, Ban  # noqa: PLC0415 - one test

    freed: list[object] = []
    by_hand = Ban(_BANNED, "manual", 60, "", "alice")
    answer.setattr("sipfw.manual.bans.list_bans", lambda _: ActiveBans((by_hand,), (), ()))
    answer.setattr("sipfw.manual.bans.unban", lambda *words: freed.append(words) or _Nothing())
    answer.setattr(sys, "stdin", io.StringIO(reply))
    ran = operator.run("unban", "--all", code=Exit.DIFFERENT if reply == "n\n" else Exit.CLEAN)
    assert "1 ban by hand with reason and end would be lost" in ran.stderr
    assert bool(freed) is (reply == "y\n")


class _Nothing:
    """What an unban that frees nobody returns."""

    freed = strangers = ()

    class done:  # noqa: N801 - a field
        notes = ()
        made = None
