from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy.names import cache as names_module
from sipfw.deploy.names.cache import (
    Resolution,
    Stale,
    age_text,
    read_names,
    recalled,
    remember,
    resolution_warnings,
    resolve_or_recall,
)
from sipfw.deploy.names.grace import KnownName, NameAddress
from sipfw.deploy.names.resolve import ADMINS, PEERS
from sipfw.errors import BackendError
from sipfw.host import files
from sipfw.host.files import Layout
from sipfw.resolver.records import DnsQuestion, FoundAddress, Located, Unanswered

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.deploy.names.resolve import Lookup

DAY = 86400.0
GOOD_MEMBER = {"address": "203.0.113.5", "via": "A", "missing": None}
GOOD = (ip_network("203.0.113.5"), ip_network("2001:db8::5"))
KNOWN = {"sip.a.example": KnownName(tuple(NameAddress(item, "A") for item in GOOD), 1000.0, 1300.0)}
A = {"sip.a.example": PEERS}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


async def _down(_: DnsQuestion) -> Located:
    raise Unanswered("no answer in time")


def _saying(*texts: str) -> Lookup:
    async def lookup(_: DnsQuestion) -> Located:
        return Located(tuple(FoundAddress(ip_address(text), "A") for text in texts))

    return lookup


def _fresh(*names: str, now: float = 1000.0) -> Resolution:
    known = replace(KNOWN["sip.a.example"], time=now, due=now + 300)
    return Resolution(dict.fromkeys(names, GOOD), known=dict.fromkeys(names, known))


def test_what_was_resolved_comes_back(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    assert read_names(layout) == KNOWN


def test_the_file_is_roots_alone_and_nothing_is_left_beside_it(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"))
    path = layout.names
    assert path == layout.root / "var/lib/sipfw/names.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_policy_without_names_writes_no_file(layout: Layout) -> None:
    remember(layout, Resolution({}, ()))
    assert not layout.state.exists()


@pytest.mark.parametrize(
    "answer",
    [[], ["0.0.0.0"], ["::"], ["127.0.0.1"], ["::1"], ["224.0.0.1"], ["ff02::1"], ["0.1.2.3"],
     ["240.0.0.1"], ["255.255.255.255"], ["::ffff:127.0.0.1"], ["127.0.0.1", "0.0.0.0"],
     ["10.0.0.1"], ["fe80::1"], [f"198.51.{n // 256}.{n % 256}" for n in range(10_000)]],
)  # fmt: skip
def test_a_useless_answer_keeps_the_last_good_addresses(answer: list[str]) -> None:
    result = resolve_or_recall(A, KNOWN, lookup=_saying(*answer), now=1000 + DAY)
    assert result.addresses == {"sip.a.example": GOOD}
    assert result.failures == ()
    [stale] = result.stale
    assert (stale.name, stale.age) == ("sip.a.example", DAY)


def test_a_useful_part_of_an_answer_is_an_answer() -> None:
    answer = _saying("240.0.0.1", "198.51.100.9", "127.0.0.1")
    result = resolve_or_recall(A, {}, lookup=answer)
    assert result.addresses == {"sip.a.example": (ip_network("198.51.100.9"),)}
    assert result.stale == ()
    assert result.remarks == (
        ("sip.a.example", "240.0.0.1 is nobody's address"),
        ("sip.a.example", "127.0.0.1 is nobody's address"),
    )


def test_a_new_answer_keeps_what_was_there_for_the_grace() -> None:
    result = resolve_or_recall(A, KNOWN, lookup=_saying("198.51.100.9"), now=2000.0)
    assert set(result.addresses["sip.a.example"]) == {*GOOD, ip_network("198.51.100.9")}


def test_only_what_is_due_is_asked_and_grace_ends_all_the_same() -> None:
    gone = NameAddress(ip_network("198.51.100.9"), "A", 1000.0 - 3600)
    known = {
        **KNOWN,
        "sip.b.example": replace(KNOWN["sip.a.example"], due=900.0),
        "sip.c.example": KnownName((NameAddress(GOOD[0]), gone), 900.0, 1300.0),
    }
    asked = []

    async def lookup(question: DnsQuestion) -> Located:
        asked.append(question.name)
        return Located((FoundAddress(ip_address("203.0.113.7"), "A"),))

    names = dict.fromkeys([*known, "sip.d.example"], PEERS)
    result = resolve_or_recall(names, known, due_only=True, lookup=lookup, now=1000.0)
    assert sorted(asked) == ["sip.b.example", "sip.d.example"]
    assert result.addresses["sip.a.example"] == GOOD
    assert result.addresses["sip.c.example"] == (GOOD[0],)
    assert (result.failures, result.stale) == ((), ())


def test_a_name_that_never_resolved_stays_a_failure() -> None:
    known = {"sip.b.example": KnownName((), 1000.0)}
    names = {"sip.b.example": PEERS, "sip.c.example A/AAAA": ADMINS}
    result = resolve_or_recall(names, known, lookup=_down)
    assert result.addresses == {}
    assert [name for name, _ in result.failures] == list(names)
    assert [str(item) for item in resolution_warnings(result)] == [
        (
            "warning: trusted_peers: 'sip.b.example' has no address now (no answer in time); "
            "the peer is not trusted until it has"
        ),
        (
            "warning: admin.networks: 'sip.c.example' has no address now (no answer in time); "
            "nobody gets in by it until it has"
        ),
    ]


def test_recalling_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "resolve", lambda *_, **__: pytest.fail("DNS was asked"))
    assert recalled(["sip.a.example"], KNOWN).addresses == {"sip.a.example": GOOD}


def test_stale_addresses_do_not_become_younger(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    for _ in range(2):
        known = read_names(layout)
        result = resolve_or_recall(A, known, lookup=_down, now=1000 + DAY)
        remember(layout, result, now=1000 + DAY)
    assert read_names(layout) == KNOWN
    assert result.stale[0].age == DAY


def test_a_failure_is_remembered_as_such_and_never_wipes_an_answer(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    failed = Resolution({}, (("sip.a.example", "down"), ("sip.b.example", "down")))
    remember(layout, failed, now=2000.0)
    assert read_names(layout) == {**KNOWN, "sip.b.example": KnownName((), 2000.0)}


def test_names_of_no_policy_are_forgotten_but_those_asked_for_never(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example", "sip.b.example", "sip.c.example"), now=1000.0)
    later = 1000 + 60 * DAY
    remember(layout, _fresh("sip.c.example", now=later), now=later)
    down = resolve_or_recall(A, read_names(layout), lookup=_down, now=1000 + 100 * DAY)
    remember(layout, down, now=1000 + 100 * DAY)
    assert sorted(read_names(layout)) == ["sip.a.example", "sip.c.example"]


def test_the_warning_names_addresses_reason_and_age() -> None:
    stale = Stale("sip.a.example", "no answer in time", 3 * DAY + 5)
    failed = (("sip.b.example", "no such name"),)
    resolution = Resolution({"sip.a.example": GOOD}, failed, (stale,))
    assert [str(item) for item in resolution_warnings(resolution)] == [
        (
            "warning: trusted_peers: 'sip.b.example' has no address now (no such name); "
            "the peer is not trusted until it has"
        ),
        (
            "warning: trusted_peers: 'sip.a.example' has no address now (no answer in time); its "
            "last good ones stay trusted: 203.0.113.5, 2001:db8::5, 3 d old"
        ),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s old"), (119, "1 min 59 s old"), (120, "2 min old"), (7200, "2 h old"),
     (176400, "2 d 1 h old"), (None, "of unknown age, because the clock has gone back")],
)  # fmt: skip
def test_ages(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


def test_a_clock_that_went_back_is_said() -> None:
    result = resolve_or_recall(A, KNOWN, lookup=_down, now=0.0)
    assert result.stale[0].age is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "[" * 100_000,
        '{"format": 3, "names": {}}',
        '{"format": 1}',
        '{"format": 1, "names": []}',
        '{"format": 2, "names": []}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(layout: Layout, text: str) -> None:
    layout.names.parent.mkdir(parents=True)
    layout.names.write_text(text)
    assert read_names(layout) == {}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"addresses": [GOOD_MEMBER]},
        {"addresses": GOOD_MEMBER, "time": 1, "due": 1},
        {"addresses": [GOOD_MEMBER], "time": True, "due": 1},
        {"addresses": [GOOD_MEMBER], "time": "1", "due": 1},
        {"addresses": [GOOD_MEMBER], "time": 1, "due": None},
        {"addresses": [GOOD_MEMBER], "time": 1, "due": 1, "more": 1},
        *(
            {"addresses": [GOOD_MEMBER, {**GOOD_MEMBER, **change}], "time": 1, "due": 1}
            for change in (
                {"address": 1},
                {"address": "203.0.113.0/24"},
                {"address": "0.0.0.0/0"},
                {"address": "127.0.0.1"},
                {"address": "x; flush ruleset"},
                {"via": None},
                {"via": "\x1b[2J"},
                {"via": "x" * 1000},
                {"missing": "1"},
                {"missing": True},
                {"more": 1},
            )
        ),
        {"addresses": ["203.0.113.5"], "time": 1, "due": 1},
    ],
)
def test_a_damaged_entry_costs_that_entry_alone(layout: Layout, entry: object) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    data = json.loads(layout.names.read_text())
    data["names"]["sip.b.example"] = entry
    layout.names.write_text(json.dumps(data))
    assert read_names(layout) == KNOWN


def test_a_file_that_others_may_write_is_not_believed(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    layout.names.chmod(0o666)
    assert read_names(layout) == {}


def test_a_link_or_a_pipe_in_its_place_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    path = layout.names
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert read_names(layout) == {}
    path.unlink()
    os.mkfifo(path)
    assert read_names(layout) == {}


def test_a_full_disk_keeps_the_old_file(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BackendError, match="no space left"):
        remember(layout, _fresh("sip.b.example"), now=2000.0)
    assert read_names(layout) == KNOWN


def test_the_file_of_an_older_version_is_read(layout: Layout) -> None:
    layout.names.parent.mkdir(parents=True)
    entry = {"addresses": ["203.0.113.5", "2001:db8::5"], "time": 1000.0}
    damaged = {"addresses": ["0.0.0.0/0"], "time": 1000.0}
    data = {"format": 1, "names": {"sip.a.example": entry, "sip.b.example": damaged}}
    layout.names.write_text(json.dumps(data))
    layout.names.chmod(0o600)
    [(name, known)] = read_names(layout).items()
    assert (name, known.addresses, known.time) == ("sip.a.example", GOOD, 1000.0)
