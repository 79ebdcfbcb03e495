"""Shapes of the report's charts: places in the box, runs, ticks."""

from __future__ import annotations

import re

import pytest

from sipfw.render.charts import Frame, lined, nice_top, stacked, x_ticks

FRAME = Frame("Dropped", "per second", 0.0, 40.0, [(20.0, "again"), (99.0, "later")])


@pytest.mark.parametrize(
    ("most", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (24, 25), (26, 50), (999, 1000)]
)
def test_an_axis_ends_at_a_round_number(most: float, top: float) -> None:
    assert nice_top(most) == pytest.approx(top)


def test_layers_lie_upon_each_other() -> None:
    chart = stacked(FRAME, [("a", 1, (1.0, 2.0, 3.0, 4.0)), ("b", 2, (0.0, 0.0, 2.0, 1.0))])
    first, second = (shape.path for shape in chart.shapes)
    assert first == (
        "M0.0 200.0V160.0H250.0V120.0H500.0V80.0H750.0V40.0H1000.0"
        "V200.0H750.0V200.0H500.0V200.0H250.0V200.0H0.0Z"
    )
    assert second.startswith("M0.0 160.0V160.0H250.0V120.0H500.0V0.0H750.0V0.0H1000.0V40.0H750.0")
    assert chart.legend == (("a", 1), ("b", 2))
    assert [strip.text.splitlines()[1:] for strip in chart.strips][2] == ["a 3", "b 2"]


def test_what_is_not_known_is_left_out() -> None:
    chart = stacked(FRAME, [("a", 1, (1.0, None, None, 1.0))])
    assert chart.shapes[0].path.count("M") == 2
    assert "500" not in chart.shapes[0].path
    assert [(blank.x, blank.width) for blank in chart.blanks] == [(250.0, 500.0)]
    assert len(chart.strips) == 2
    assert chart.legend == ()


def test_nothing_known_at_all_is_an_empty_chart() -> None:
    chart = stacked(FRAME, [("a", 1, (None, None))])
    assert chart.shapes[0].path == ""
    assert [(blank.x, blank.width) for blank in chart.blanks] == [(0.0, 1000.0)]


def test_only_marks_of_that_time_are_drawn() -> None:
    chart = stacked(FRAME, [("a", 1, (1.0,))])
    assert [(mark.x, mark.text[-7:]) for mark in chart.marks] == [(500.0, ": again")]


def test_runs_of_a_line_are_not_joined() -> None:
    chart = lined(FRAME, "connections", 0, [[(0.0, 50), (10.0, 100)], [(30.0, 10)]])
    assert chart.shapes[0].path == "M0.0 100.0L250.0 0.0M750.0 180.0L752.0 180.0"
    assert [(blank.x, blank.width) for blank in chart.blanks] == [(250.0, 500.0)]
    assert not chart.filled


@pytest.mark.parametrize("span", [1.0, 40.0, 600.0, 7200.0, 86_400.0, 3 * 86_400.0, 31 * 86_400.0])
def test_ticks_are_few_and_inside(span: float) -> None:
    start = 1_795_520_034.6
    ticks = list(x_ticks(start, start + span))
    assert 1 <= len(ticks) <= 8
    assert all(0 <= tick.at <= 100 for tick in ticks)
    form = r"\w{3} \d\d|\d\d:\d\d" if span >= 7200 else r"\d\d:\d\d(:\d\d)?"
    assert all(re.fullmatch(form, tick.text) for tick in ticks)
    assert any(not tick.minor for tick in ticks)
    assert all(not tick.minor for tick in ticks if tick.text[0].isalpha() and span < 7 * 86_400)
    days = [tick.text for tick in ticks if tick.text[0].isalpha()]
    assert len(days) == (len(ticks) if span > 7 * 86_400 else min(round(span / 86_400), len(ticks)))
