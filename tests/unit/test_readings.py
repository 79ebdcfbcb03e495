"""Readings: what grew, what was set back, what is kept and for how long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.host.files import Layout
from sipfw.lower.xtables import Family
from sipfw.monitor import readings
from sipfw.monitor.reading import Reading, from_text, growth, make_reading, to_text
from unit.readings import report, rule

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


def reading(taken: float, packets: int = 5, boot: str = "one") -> Reading:
    seen = report(rule("trusted", "t", "pass", 1), rule("banned", "b", "drop", packets, 2))
    return make_reading(seen, taken=taken, boot=boot, generation=3)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path)
    found.state.mkdir(parents=True)
    return found


def kept(layout: Layout) -> list[float]:
    return [item.taken for item in readings.history(layout, 0.0)]


def test_a_reading_comes_back_from_its_file() -> None:
    assert from_text(to_text(reading(7.25))) == reading(7.25)


def test_rules_that_counted_nothing_take_no_room() -> None:
    assert (Family.IP, "SIP_banned", "b") not in reading(1.0, packets=0).rules


def test_growth_is_what_was_counted_between() -> None:
    grown = growth(reading(10.0, 5), reading(14.0, 25))
    assert grown.seconds == 4.0
    assert grown.rules[Family.IP, "SIP_banned", "b"] == (20, 2000)
    assert grown.rules[Family.IP6, "SIP_banned", "b"] == (0, 0)
    assert grown.reset == 0


def test_a_counter_that_was_set_back_counts_from_nought() -> None:
    grown = growth(reading(10.0, 50), reading(14.0, 3))
    assert grown.rules[Family.IP, "SIP_banned", "b"] == (3, 300)
    assert grown.reset == 1


def test_a_counter_at_nought_after_having_counted_was_set_back() -> None:
    assert growth(reading(10.0, 50), reading(14.0, 0)).reset == 1


def test_another_boot_begins_every_counter_again() -> None:
    grown = growth(reading(10.0, 5, boot="one"), reading(14.0, 25, boot="two"))
    assert grown.rules[Family.IP, "SIP_banned", "b"] == (25, 2500)
    assert grown.reset == 0


def test_a_clock_that_went_back_gives_no_negative_time() -> None:
    assert growth(reading(10.0), reading(4.0)).seconds == 0.0


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([None, *json.loads(to_text(reading(1.0)))]),
)
def test_a_damaged_reading_is_a_value_error(value: object, field: str | None) -> None:
    data = value if field is None else {**json.loads(to_text(reading(1.0))), field: value}
    try:
        from_text(json.dumps(data))
    except ValueError:
        return
    assert isinstance(data, dict)


def test_nothing_is_kept_where_sipfw_has_no_folder(tmp_path: Path) -> None:
    readings.keep(Layout(tmp_path), reading(100.0))
    assert list(tmp_path.iterdir()) == []


def test_looks_that_follow_closely_keep_one_reading(layout: Layout) -> None:
    for taken in (100.0, 102.0, 104.9, 105.0):
        readings.keep(layout, reading(taken))
    assert kept(layout) == [100.0, 105.0]


def test_only_root_may_read_a_reading(layout: Layout) -> None:
    readings.keep(layout, reading(100.0))
    (file,) = layout.readings.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_newest_reading_before_a_moment(layout: Layout) -> None:
    for taken in (100.0, 200.0, 300.0):
        readings.keep(layout, reading(taken))
    assert readings.latest(layout, 299.0) == reading(200.0)
    assert readings.latest(layout, 300.0) == reading(300.0)
    assert readings.latest(layout, 99.0) is None
    assert readings.since(layout, 99.0) == reading(100.0)


def test_a_damaged_file_is_passed_over(layout: Layout) -> None:
    for taken in (100.0, 200.0):
        readings.keep(layout, reading(taken))
    max(layout.readings.iterdir()).write_text("{")
    assert readings.latest(layout, 500.0) == reading(100.0)


def test_readings_from_the_future_go(layout: Layout) -> None:
    readings.keep(layout, reading(10_000.0))
    readings.keep(layout, reading(100.0))
    assert kept(layout) == [100.0]


def test_older_readings_are_thinned_out() -> None:
    now = 100 * DAY
    times = [now - 60.0 * minute for minute in range(60 * 24 * 40, -1, -1)]
    gone = set(readings.superfluous(times, now))
    left = [time for time in times if time not in gone]
    assert all(now - time <= 31 * DAY for time in left)
    assert [time for time in left if now - time < 7200] == times[-120:]
    assert len(left) < 1200
    # What was kept stays kept: a second thinning takes nothing more away.
    assert readings.superfluous(left, now) == []
