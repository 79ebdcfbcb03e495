"""The words that every message shares: counts, lengths of time, moments."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from sipfw.cli.moments import moment_of
from sipfw.words import format_duration, format_stored_timestamp, format_timestamp, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_795_000_000


@pytest.fixture(params=["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "XYZ3:30"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("ban",), "0 bans"),
        (1, ("ban",), "1 ban"),
        (2, ("ban",), "2 bans"),
        (1, ("entry", "entries"), "1 entry"),
        (12_345, ("entry", "entries"), "12,345 entries"),
    ],
)
def test_one_and_many(number: int, words: tuple[str, ...], text: str) -> None:
    assert pluralize(number, *words) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (59.6, "1 min"),
        (3557, "59 min 17 s"),
        (7199, "1 h 59 min"),
        (7200, "2 h"),
        (86_459, "1 d"),
        (183_600, "2 d 3 h"),
    ],
)
def test_a_length_of_time(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_moment_has_its_zone_and_is_read_by_since(zone: str) -> None:
    text = format_timestamp(NOW + 0.9)
    assert datetime.fromisoformat(text).timestamp() == NOW
    assert datetime.fromisoformat(text).utcoffset() is not None
    assert moment_of(text, NOW + 60) == NOW
    assert text.startswith(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW)))
    assert text.endswith({"U": "+00:00", "C": "+01:00", "X": "-03:30"}[zone[0]])


@pytest.mark.usefixtures("zone")
def test_a_stored_moment_is_shown_in_the_hosts_zone() -> None:
    assert format_stored_timestamp("2026-11-18T11:06:40+00:00") == format_timestamp(NOW)
    assert format_stored_timestamp("yesterday") == "yesterday"
