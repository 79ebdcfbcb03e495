"""Events: one of several looks, bounded in number, and a file that is damaged, full or a trap."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.monitor.events import store
from sipfw.monitor.events.event import Event, EventKind
from sipfw.monitor.events.file import EventFile
from sipfw.monitor.events.store import between, put_down

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_790_000_000.0
HOUR = 3600.0
SOURCE = ip_network("198.51.100.66")
BAN = Event(EventKind.BAN, SOURCE, "rate-limit", "banned", "too much", "", NOW, NOW, NOW + HOUR)


class Book:
    """The file of a host, and what was said about it."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.layout.state.mkdir(parents=True, mode=0o700)
        self.said: list[str] = []
        self.file = EventFile(self.layout, self.said.append)

    def see(self, *seen: Event, now: float = NOW, whole: bool = False, freed: str = "") -> None:
        rules = {"banned", "blocked"} if whole else set()
        self.file.change(partial(put_down, seen=seen, now=now, whole=rules, freed=freed))

    def all(self, network: str | None = None) -> list[Event]:
        where = None if network is None else ip_network(network)
        found, _ = self.file.ask(lambda base: between(base, 0, NOW * 2, where)) or ([], 0)
        return found


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_looks_at_one_ban_are_one_event(book: Book) -> None:
    for step in range(4):
        # The kernel tells whole seconds, so the end of a ban trembles.
        book.see(replace(BAN, until=NOW + HOUR + step % 2, packets=5), now=NOW + 30 * step)
    (event,) = book.all()
    assert event == replace(BAN, packets=20)


def test_a_second_ban_is_another_event(book: Book) -> None:
    book.see(BAN)
    later = NOW + 2 * HOUR
    book.see(replace(BAN, first=later, last=later, until=later + HOUR), now=later)
    assert [item.first for item in book.all()] == [later, NOW]


def test_a_ban_that_is_gone_before_its_time_was_ended(book: Book) -> None:
    book.see(BAN)
    book.see(now=NOW + 60)
    assert book.all() == [BAN]
    book.see(now=NOW + 90, whole=True, freed="alice")
    (event,) = book.all()
    assert (event.until, event.freed) == (NOW + 90, "alice")


def test_a_ban_that_one_look_missed_is_still_one_event(book: Book) -> None:
    book.see(BAN)
    book.see(now=NOW + 30, whole=True)
    book.see(BAN, now=NOW + 60, whole=True)
    assert book.all() == [BAN]
    # But whoever was freed and comes again has another one.
    book.see(now=NOW + 90, whole=True)
    again = replace(BAN, first=NOW + 100, last=NOW + 100, until=NOW + 100 + HOUR)
    book.see(again, now=NOW + 120, whole=True)
    assert [item.first for item in book.all()] == [NOW + 100, NOW]


def test_an_order_takes_the_place_of_the_one_before(book: Book) -> None:
    order = replace(BAN, kind=EventKind.HAND, rule="blocked", who="alice", reason="fraud")
    book.see(order, whole=True)
    again = replace(order, first=NOW + 60, last=NOW + 60, until=NOW + 9 * HOUR, who="bob")
    book.see(again, now=NOW + 60, whole=True)
    newer, older = book.all()
    assert newer == again
    assert (older.who, older.until) == ("alice", NOW + 60)


def test_drops_are_one_event_until_an_hour_of_silence(book: Book) -> None:
    drop = replace(BAN, kind=EventKind.DROP, rule="scanner.options-udp", until=None, packets=3)
    book.see(drop)
    book.see(replace(drop, first=NOW + 600, last=NOW + 603), now=NOW + 603)
    (event,) = book.all()
    assert (event.first, event.last, event.packets) == (NOW, NOW + 603, 6)
    book.see(replace(drop, first=NOW + 9000, last=NOW + 9000), now=NOW + 9000)
    assert len(book.all()) == 2


def test_events_of_an_address_of_a_network_and_of_a_time(book: Book) -> None:
    six = replace(BAN, source=ip_network("2001:db8:66::/64"))
    book.see(BAN, six)
    assert book.all("198.51.100.66") == book.all("198.51.100.0/24") == [BAN]
    assert book.all("2001:db8:66::5") == [six]
    assert book.all("198.51.100.67") == []
    ask = book.file.ask
    assert ask(lambda base: between(base, NOW + HOUR + 1, NOW + 2 * HOUR)) == ([], 0)
    assert ask(lambda base: between(base, NOW + HOUR / 2, NOW + HOUR)) == ([six, BAN], 0)
    assert ask(lambda base: between(base, NOW, NOW + HOUR, most=1)) == ([six], 1)


def test_a_crowd_is_counted_and_whom_the_switch_knows_is_named(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_NEW_AN_HOUR", 10)
    crowd = [replace(BAN, source=ip_network(f"203.0.113.{n}"), known=n == 200) for n in range(250)]
    for step in range(3):
        book.see(*crowd, now=NOW + 30 * step, whole=True)
    found = book.all()
    named = [item for item in found if item.source is not None]
    assert len(named) == 10
    assert ip_network("203.0.113.200") in [item.source for item in named]
    (rest,) = (item for item in found if item.source is None)
    assert (rest.sources, rest.until, rest.subject) == (240, NOW + HOUR, "240 others")


def test_a_flood_of_one_kind_pushes_out_no_other(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store.MOST, EventKind.BAN, 20)
    order = replace(BAN, kind=EventKind.HAND, rule="blocked")
    book.see(order)
    for n in range(100):
        moment = NOW + n
        source = ip_network(f"203.0.113.{n}")
        book.see(replace(BAN, source=source, first=moment, until=moment + HOUR), now=moment)
    found = book.all()
    assert order in found
    bans = [item for item in found if item.kind is EventKind.BAN]
    assert len(bans) == 20
    assert min(item.first for item in bans) == NOW + 80


def test_a_month_is_kept(book: Book) -> None:
    book.see(BAN)
    book.see(now=NOW + HOUR + store.KEPT - 1)
    assert book.all() == [BAN]
    book.see(now=NOW + HOUR + store.KEPT + 1)
    assert book.all() == []


@pytest.mark.parametrize(
    "text", [b"not a database at all\n" * 50, b"SQLite format 3\0" + bytes(99)]
)
def test_a_damaged_file_moves_aside(book: Book, text: bytes) -> None:
    path = book.layout.events
    path.write_bytes(text)
    path.chmod(0o600)
    book.see(BAN)
    assert book.all() == [BAN]
    (line,) = book.said
    assert line.startswith(f"{path} was damaged")
    (aside,) = path.parent.glob("events.sqlite.damaged-*")
    assert aside.read_bytes() == text


def test_pages_that_are_damaged_move_aside(book: Book) -> None:
    book.see(*(replace(BAN, source=ip_network(f"203.0.113.{n}")) for n in range(250)))
    path = book.layout.events
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    book.see(BAN)
    assert book.all() == [BAN]
    assert len(book.said) == 1


def test_the_tables_of_others_move_aside(book: Book) -> None:
    with sqlite3.connect(book.layout.events) as base:
        base.execute("CREATE TABLE events (id)")
        base.execute(
            "CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT load_extension('x'); END"
        )
    base.close()
    book.layout.events.chmod(0o600)
    book.see(BAN)
    assert book.all() == [BAN]


def test_rows_of_others_are_left_out(book: Book) -> None:
    book.see(BAN)
    base = sqlite3.connect(book.layout.events)
    base.execute("UPDATE events SET reason = 'x' || char(27) || '[2J'")
    base.commit()
    base.close()
    assert book.all() == []


def test_a_full_disk_is_one_line_and_loses_nothing(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.see(BAN)
    monkeypatch.setattr("sipfw.monitor.events.file._MOST_PAGES", 1)
    crowd = (replace(BAN, source=ip_network(f"203.0.113.{n}")) for n in range(250))
    with pytest.raises(BackendError, match="the disk is full"):
        book.see(*crowd)
    assert book.all() == [BAN]


@pytest.mark.parametrize("name", ["events.sqlite", "events.sqlite-journal"])
def test_a_link_is_not_followed(book: Book, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    (book.layout.state / name).symlink_to(elsewhere)
    with pytest.raises(BackendError):
        book.see(BAN)
    assert elsewhere.read_text() == "precious"


def test_a_pipe_or_an_open_file_is_refused(book: Book) -> None:
    path = book.layout.events
    os.mkfifo(path)
    with pytest.raises(BackendError, match="not a file"):
        book.see(BAN)
    path.unlink()
    path.touch()
    path.chmod(0o666)
    with pytest.raises(BackendError, match="others than root"):
        book.see(BAN)


def test_the_file_is_roots_alone(book: Book) -> None:
    book.see(BAN)
    assert book.layout.events.stat().st_mode & 0o777 == 0o600


def test_without_a_folder_of_sipfw_there_is_no_file(tmp_path: Path) -> None:
    file = EventFile(Layout(tmp_path), lambda _: None)
    assert file.change(partial(put_down, seen=[BAN], now=NOW)) is None
    assert list(tmp_path.iterdir()) == []
