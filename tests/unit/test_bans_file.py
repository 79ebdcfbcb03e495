"""The files of bans and trusts by hand: round trip, expiry, clocks, and files of others."""

from __future__ import annotations

import json
import stat
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from sipfw.compiler.manual import NOBODY, ByHand
from sipfw.deploy.manual_list import (
    Book,
    ManualEntry,
    by_hand,
    by_source,
    checked_reason,
    forget_by_hand,
    read_page,
    write_page,
)
from sipfw.deploy.manual_sets import room_for
from sipfw.host.files import Layout
from sipfw.host.privilege import who
from sipfw.ruleset.match import ONE_ADDRESS, PrefixLengths

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = ip_address("198.51.100.66")
OTHER = ip_address("2001:db8::66")
NOW = 1_000_000


def kept(
    address: Any = ADDRESS, *, since: int = NOW, seconds: int = 600, reason: str = ""
) -> ManualEntry:
    return ManualEntry(address, since, since + seconds, reason, "uid 0")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def raw(layout: Layout, data: Any) -> None:
    path = Book.BANS.path(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    path.chmod(0o600)


def entry(**changes: Any) -> dict[str, Any]:
    plain = {"address": str(ADDRESS), "since": NOW, "until": NOW + 9, "reason": "", "who": "uid 0"}
    return {**plain, **changes}


def test_what_is_written_is_read(layout: Layout) -> None:
    entries = {ADDRESS: kept(reason="says 'hi'; `rm` #1"), OTHER: kept(OTHER, seconds=60)}
    write_page(layout, Book.BANS, entries)
    page = read_page(layout, Book.BANS, now=NOW + 1)
    assert (page.entries, page.faults) == (entries, ())
    assert stat.S_IMODE(Book.BANS.path(layout).stat().st_mode) == 0o600
    assert read_page(layout, Book.TRUSTS).entries == {}


def test_what_has_expired_is_forgotten(layout: Layout) -> None:
    write_page(layout, Book.BANS, {ADDRESS: kept(), OTHER: kept(OTHER, seconds=60)})
    assert set(read_page(layout, Book.BANS, now=NOW + 60).entries) == {ADDRESS}
    assert not read_page(layout, Book.BANS, now=NOW + 600).entries


def test_a_clock_that_has_gone_back_makes_no_ban_longer(layout: Layout) -> None:
    write_page(layout, Book.BANS, {ADDRESS: kept()})
    assert read_page(layout, Book.BANS, now=0).entries[ADDRESS].left(0) == 600


def test_without_an_entry_there_is_no_file(layout: Layout) -> None:
    for book in Book:
        write_page(layout, book, {ADDRESS: kept()})
    write_page(layout, Book.TRUSTS, {})
    assert not Book.TRUSTS.path(layout).exists()
    forget_by_hand(layout)
    assert list(layout.state.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"format": 2, "entries": []}',
        '{"format": 1, "entries": {}}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_damaged_file_is_a_warning_and_keeps_the_rule(layout: Layout, data: str) -> None:
    raw(layout, data)
    page = read_page(layout, Book.BANS)
    assert page.entries == {}
    (fault,) = page.faults
    assert "bans.json: cannot be read" in str(fault)
    assert by_hand(layout) == ByHand(blocked=True)


def test_a_file_that_others_may_write_counts_for_nothing(layout: Layout) -> None:
    raw(layout, {"format": 1, "entries": [entry()]})
    Book.BANS.path(layout).chmod(0o666)
    page = read_page(layout, Book.BANS, now=NOW)
    assert not page.entries
    assert "may be written by others" in str(page.faults[0])


@pytest.mark.parametrize(
    "damage",
    [
        {"address": "198.51.100.66/24"},
        {"address": "fe80::1%eth0; reboot"},
        {"address": "127.0.0.1"},
        {"address": "0.0.0.0"},
        {"address": 3325256770},
        {"reason": "a\nb"},
        {"reason": "\x1b[2J"},
        {"reason": "x" * 81},
        {"who": "root; rm"},
        {"who": ""},
        {"until": NOW},
        {"until": NOW + 10**9},
        {"until": 1e300},
        {"until": True},
        {"since": None},
        {"since": 10**18, "until": 10**18 + 60},
        {"more": 1},
    ],
)
def test_a_damaged_entry_is_left_out_and_the_others_count(
    layout: Layout, damage: dict[str, Any]
) -> None:
    good = entry(address=str(OTHER))
    raw(layout, {"format": 1, "entries": [entry(**damage), "x", None, good]})
    page = read_page(layout, Book.BANS, now=NOW)
    assert set(page.entries) == {OTHER}
    assert "3 entries are damaged and left out" in str(page.faults[0])


def test_one_damaged_entry_is_said_in_the_singular(layout: Layout) -> None:
    raw(layout, {"format": 1, "entries": ["x"]})
    page = read_page(layout, Book.BANS, now=NOW)
    assert "1 entry is damaged and left out" in str(page.faults[0])


def test_the_rules_follow_the_files(layout: Layout) -> None:
    assert by_hand(layout) == NOBODY
    now = int(time.time())
    write_page(layout, Book.TRUSTS, {ADDRESS: kept(since=now)})
    assert by_hand(layout) == ByHand(guests=True)
    write_page(layout, Book.TRUSTS, {ADDRESS: kept(since=now - 601)})
    assert by_hand(layout) == NOBODY


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "\x00", "\u202eevil", "\x9b", "\u2028", "y" * 81])
def test_a_reason_that_may_not_be_shown_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reason"):
        checked_reason(text)


def test_a_reason_is_kept_without_blanks_around_it() -> None:
    assert checked_reason("  Schröder's “scan” # $(x)  ") == "Schröder's “scan” # $(x)"


@pytest.mark.parametrize(
    ("user", "named"), [("anna", "anna"), ("", "uid"), ("a b", "uid"), ("\x1b[0m", "uid")]
)
def test_who_asks_is_named(monkeypatch: pytest.MonkeyPatch, user: str, named: str) -> None:
    monkeypatch.setenv("SUDO_USER", user)
    assert who().partition(" ")[0] == named


def test_a_set_that_is_too_small_takes_those_that_last_longest() -> None:
    entries = [kept(ip_address(f"198.51.100.{n}"), seconds=n) for n in range(1, 6)]
    chosen = room_for([*entries, kept(OTHER, seconds=1)], 2)
    assert [str(item.address) for item in chosen] == ["198.51.100.5", "198.51.100.4", str(OTHER)]


def test_a_file_of_single_addresses_is_read_as_one_of_sources(layout: Layout) -> None:
    """As versions before `limits.ipv6_prefix` wrote it; of one prefix the longest ban counts."""
    texts = ["2001:db8::66", "2001:db8::67", "2001:db8:0:1::66", "198.51.100.66"]
    ends = {text: NOW + 100 + number for number, text in enumerate(texts)}
    items = [entry(address=text, until=until) for text, until in ends.items()]
    raw(layout, {"format": 1, "entries": items})
    page = read_page(layout, Book.BANS, now=NOW)
    found = by_source(page, PrefixLengths(32, 64)).entries
    assert {str(address): item.until - NOW for address, item in found.items()} == {
        "2001:db8::": 101,
        "2001:db8:0:1::": 102,
        "198.51.100.66": 103,
    }
    assert all(item.address == address for address, item in found.items())
    assert by_source(page, ONE_ADDRESS) == page
