from __future__ import annotations

import errno
import json
import os
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy import files
from sipfw.deploy.files import Layout
from sipfw.deploy.names import (
    Known,
    age_text,
    names_file,
    read_names,
    recalled,
    remember,
    resolution_warnings,
    resolve_or_recall,
)
from sipfw.deploy.resolve import Resolution, Stale, resolve
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400.0
GOOD = (ip_network("203.0.113.5"), ip_network("2001:db8::5"))
KNOWN = {"sip.a.example": Known(GOOD, 1000.0)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def _down(_: str) -> list[str]:
    raise OSError(-3, "Temporary failure in name resolution")


def _fresh(*names: str) -> Resolution:
    return Resolution(dict.fromkeys(names, GOOD), ())


def test_what_was_resolved_comes_back(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    assert read_names(layout) == KNOWN


def test_the_file_is_roots_alone_and_nothing_is_left_beside_it(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"))
    path = names_file(layout)
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
     ["240.0.0.1"], ["255.255.255.255"], ["::ffff:127.0.0.1"], ["127.0.0.1", "0.0.0.0"]],
)  # fmt: skip
def test_a_useless_answer_keeps_the_last_good_addresses(answer: list[str]) -> None:
    result = resolve_or_recall(["sip.a.example"], KNOWN, lookup=lambda _: answer, now=1000 + DAY)
    assert result.addresses == {"sip.a.example": GOOD}
    assert result.failures == ()
    [stale] = result.stale
    assert (stale.name, stale.age) == ("sip.a.example", DAY)


def test_a_useful_part_of_an_answer_is_an_answer() -> None:
    answer = ["240.0.0.1", "198.51.100.9", "127.0.0.1"]
    result = resolve_or_recall(["sip.a.example"], KNOWN, lookup=lambda _: answer)
    assert result.addresses == {"sip.a.example": (ip_network("198.51.100.9"),)}
    assert result.stale == ()


def test_a_name_that_never_resolved_stays_a_failure() -> None:
    known = {"sip.b.example": Known((), 1000.0)}
    result = resolve_or_recall(["sip.b.example", "sip.c.example"], known, lookup=_down)
    assert result.addresses == {}
    assert [name for name, _ in result.failures] == ["sip.b.example", "sip.c.example"]


def test_recalling_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("DNS was asked"))
    assert recalled(["sip.a.example"], KNOWN).addresses == {"sip.a.example": GOOD}


def test_stale_addresses_do_not_become_younger(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    for _ in range(2):
        known = read_names(layout)
        result = resolve_or_recall(["sip.a.example"], known, lookup=_down, now=1000 + DAY)
        remember(layout, result, now=1000 + DAY)
    assert read_names(layout) == KNOWN
    assert result.stale[0].age == DAY


def test_a_failure_is_remembered_as_such_and_never_wipes_an_answer(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    failed = Resolution({}, (("sip.a.example", "down"), ("sip.b.example", "down")))
    remember(layout, failed, now=2000.0)
    assert read_names(layout) == {**KNOWN, "sip.b.example": Known((), 2000.0)}


def test_names_of_no_policy_are_forgotten_but_those_asked_for_never(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example", "sip.b.example", "sip.c.example"), now=1000.0)
    remember(layout, _fresh("sip.c.example"), now=1000 + 60 * DAY)
    down = resolve_or_recall(["sip.a.example"], read_names(layout), lookup=_down)
    remember(layout, down, now=1000 + 100 * DAY)
    assert sorted(read_names(layout)) == ["sip.a.example", "sip.c.example"]


def test_the_warning_names_addresses_reason_and_age() -> None:
    stale = Stale("sip.a.example", "no answer in time", 3 * DAY + 5)
    resolution = Resolution({"sip.a.example": GOOD}, (("sip.b.example", "no such name"),), (stale,))
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
    result = resolve_or_recall(["sip.a.example"], KNOWN, lookup=_down, now=0.0)
    assert result.stale[0].age is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "[" * 100_000,
        '{"format": 2, "names": {}}',
        '{"format": 1}',
        '{"format": 1, "names": []}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(layout: Layout, text: str) -> None:
    names_file(layout).parent.mkdir(parents=True)
    names_file(layout).write_text(text)
    assert read_names(layout) == {}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"addresses": ["203.0.113.5"]},
        {"addresses": "203.0.113.5", "time": 1},
        {"addresses": ["203.0.113.5"], "time": True},
        {"addresses": ["203.0.113.5"], "time": "1"},
        {"addresses": [1], "time": 1},
        {"addresses": ["203.0.113.0/24"], "time": 1},
        {"addresses": ["0.0.0.0/0"], "time": 1},
        {"addresses": ["127.0.0.1"], "time": 1},
        {"addresses": ["x; flush ruleset"], "time": 1},
        {"addresses": ["203.0.113.5"], "time": 1, "more": 1},
    ],
)
def test_a_damaged_entry_costs_that_entry_alone(layout: Layout, entry: object) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    data = json.loads(names_file(layout).read_text())
    data["names"]["sip.b.example"] = entry
    names_file(layout).write_text(json.dumps(data))
    assert read_names(layout) == KNOWN


def test_a_file_that_others_may_write_is_not_believed(layout: Layout) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    names_file(layout).chmod(0o666)
    assert read_names(layout) == {}


def test_a_link_or_a_pipe_in_its_place_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    remember(layout, _fresh("sip.a.example"), now=1000.0)
    path = names_file(layout)
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


def test_addresses_that_no_policy_may_name_are_refused_from_dns_too() -> None:
    for nobody in ("0.9.9.9", "240.1.2.3", "255.255.255.255"):
        result = resolve(["a"], lookup=lambda _, answer=nobody: [answer])  # type: ignore[misc]
        assert result.addresses == {}
