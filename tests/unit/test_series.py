"""Readings as figures over time: rates, gaps, counters that began again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.monitor.reading import Reading, make_reading
from sipfw.monitor.series import counted_between, kinds_of, make_series, step_for
from unit.readings import report, rule

if TYPE_CHECKING:
    from sipfw.monitor.report import RuleReport

DAY = 86_400.0


def rules(dropped: int, passed: int = 0, probes: int = 0) -> tuple[RuleReport, ...]:
    return (
        rule("trusted", "t", "pass", passed),
        rule("banned", "b", "drop", dropped, 0),
        rule("scanner-block", "s", "drop", probes),
        rule("scanner-block", "go", "go", 5000),
    )


KINDS = kinds_of(rules(0))


def reading(
    taken: float,
    dropped: int,
    *,
    passed: int = 0,
    probes: int = 0,
    boot: str = "one",
    generation: int = 1,
    connections: int | None = 10,
) -> Reading:
    seen = report(*rules(dropped, passed, probes), connections=connections)
    return make_reading(seen, taken=taken, boot=boot, generation=generation)


def steady(start: float, end: float, every: float, each: int = 60) -> list[Reading]:
    number = int((end - start) / every)
    return [reading(start + index * every, each * index) for index in range(number + 1)]


def test_one_reading_is_nothing_to_compare() -> None:
    assert make_series([], KINDS) is None
    assert make_series([reading(5.0, 1)], KINDS) is None
    assert make_series([reading(5.0, 1), reading(5.0, 3)], KINDS) is None


def test_what_was_counted_is_spread_over_the_time_between() -> None:
    found = make_series([reading(1000.0, 0, passed=2), reading(1030.0, 60, passed=32)], KINDS)
    assert found is not None
    assert (found.start, found.end, found.step) == (1000.0, 1030.0, 1.0)
    assert found.dropped["banned"] == pytest.approx((2.0,) * 30)
    assert found.passed["trusted"] == pytest.approx((1.0,) * 30)
    assert found.counted["banned"] == 60
    assert found.gaps == ()


def test_a_step_may_hold_several_readings() -> None:
    readings = [reading(float(at), 2 * at) for at in range(0, 3600, 7)]
    found = make_series(readings, KINDS)
    assert found is not None
    assert found.step == 30.0
    assert found.dropped["banned"] == pytest.approx((2.0,) * 120)


def test_a_time_without_readings_is_a_gap_and_no_line() -> None:
    readings = [*steady(0.0, 3600.0, 60.0)]
    readings += [reading(30_000.0 + 60 * index, 5000 + 60 * index) for index in range(60)]
    found = make_series(readings, KINDS)
    assert found is not None
    (gap,) = found.gaps
    assert (gap.start, gap.end, gap.dropped) == (3600.0, 30_000.0, 5000 - 3600)
    values = found.dropped["banned"]
    silent = [
        found.start + index * found.step for index, value in enumerate(values) if value is None
    ]
    assert silent
    assert min(silent) >= 3600.0 - found.step / 2
    assert max(silent) <= 30_000.0
    assert max(value for value in values if value is not None) == pytest.approx(1.0)
    # What was counted in the gap is in the sum, though nobody knows when it was.
    assert found.counted["banned"] == 5000 + 60 * 59
    assert [(run[0][0], run[-1][0]) for run in found.connections] == [
        (0.0, 3600.0),
        (30_000.0, pytest.approx(33_540.0, abs=found.step)),
    ]


def test_who_looks_once_an_hour_has_no_gaps() -> None:
    found = make_series(steady(0.0, DAY, 3600.0), KINDS)
    assert found is not None
    assert found.gaps == ()
    assert None not in found.dropped["banned"]


def test_readings_that_were_thinned_out_have_no_gaps() -> None:
    now = 10 * DAY
    readings = [
        *steady(0.0, now - 2 * DAY, 3600.0),
        *[reading(now - 2 * DAY + 600 * index, 9 * 10**6 + index) for index in range(1, 276)],
        *[reading(now - 7200 + 10 * index, 10**7 + index) for index in range(1, 721)],
    ]
    found = make_series(readings, KINDS)
    assert found is not None
    assert found.gaps == ()


def test_counters_that_were_set_back_count_from_nought() -> None:
    readings = [reading(0.0, 100, probes=50), reading(10.0, 130, probes=4), reading(20.0, 140)]
    found = make_series(readings[:2], KINDS)
    assert found is not None
    assert (found.counted["banned"], found.counted["scanner-block"]) == (30, 4)
    assert [mark.what for mark in found.marks] == ["a counter had been set back"]


def test_a_rule_that_is_gone_is_no_flood() -> None:
    """Its layer holds less than before: that must not look as if all of it were new."""
    earlier, later = reading(0.0, 100, probes=5000), reading(10.0, 101, probes=0, generation=2)
    dropped, _ = counted_between(earlier, later, {("SIP_banned", "b"): ("banned", "drop")})
    assert {name: count for name, count in dropped.items() if count} == {"banned": 1}


def test_counters_at_nought_leave_every_layer_in_the_picture() -> None:
    found = make_series([reading(0.0, 9), reading(10.0, 0)], KINDS)
    assert found is not None
    assert set(found.dropped) == {"trusted", "banned", "scanner-block"}
    assert found.counted["banned"] == 0


def test_another_boot_begins_every_counter_again() -> None:
    found = make_series([reading(0.0, 500), reading(10.0, 20, boot="two")], KINDS)
    assert found is not None
    assert found.counted["banned"] == 20
    assert [(mark.at, mark.what) for mark in found.marks] == [(10.0, "the host was started again")]


def test_a_new_generation_is_marked() -> None:
    found = make_series([reading(0.0, 5), reading(10.0, 8, generation=2)], KINDS)
    assert found is not None
    assert [mark.what for mark in found.marks] == ["generation 2 went live"]
    assert found.counted["banned"] == 3


def test_connections_that_nobody_counted_divide_the_line() -> None:
    counts = (5, 9, None, 7)
    readings = [reading(60.0 * at, at, connections=count) for at, count in enumerate(counts)]
    found = make_series(readings, KINDS)
    assert found is not None
    assert found.connections == (((0.0, 5), (60.0, 9)), ((180.0, 7),))


@pytest.mark.parametrize(("seconds", "step"), [(0.5, 1), (119, 1), (3600, 60), (7 * DAY, 7200)])
def test_a_step_is_round(seconds: float, step: float) -> None:
    assert step_for(seconds) == step


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 10 * DAY),
            st.integers(0, 10**6),
            st.sampled_from(["one", "two"]),
            st.integers(1, 2),
        ),
        min_size=2,
        max_size=30,
    )
)
def test_no_history_gives_a_negative_or_an_invented_packet(
    steps: list[tuple[float, int, str, int]],
) -> None:
    at, readings = 1.7e9, []
    for distance, dropped, boot, generation in steps:
        at += distance
        readings.append(reading(at, dropped, boot=boot, generation=generation))
    found = make_series(readings, KINDS)
    if found is None:
        return
    values = found.dropped["banned"]
    assert len(values) == round((found.end - found.start) / found.step)
    assert all(value is None or value >= 0 for value in values)
    seen = sum(value * found.step for value in values if value is not None)
    # The first and the last step are not whole: their rate holds for less than a step.
    assert seen <= found.counted["banned"] + 2 * found.step * max(filter(None, values), default=0)
