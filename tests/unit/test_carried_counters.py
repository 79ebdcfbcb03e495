"""A rule goes on counting; a part of a split one is known by its content, not by its number."""

from __future__ import annotations

import pytest

from sipfw.kernel.xtables.carried_counters import carried

A, B, C = "aaaaaaaa", "bbbbbbbb", "cccccccc"


def mark(rule_id: str, digest: str) -> str:
    return f"sipfw:{rule_id}#{digest}"


def counted(*marks: str) -> list[tuple[str, tuple[int, int]]]:
    return [(text, (number, 10 * number)) for number, text in enumerate(marks, start=1)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param([("x", A)], [("x", A)], [1], id="unchanged"),
        pytest.param([("x", A)], [("x", B)], [1], id="content"),
        pytest.param([("x", A)], [("y", A)], [0], id="another rule"),
        pytest.param([("x", A)], [("x/1", A), ("x/2", B)], [1, 0], id="split"),
        pytest.param([("x", A)], [("x/1", B), ("x/2", A)], [0, 1], id="split behind"),
        pytest.param([("x", A)], [("x/1", B), ("x/2", C)], [0, 0], id="split and changed"),
        pytest.param([("x/1", A), ("x/2", B)], [("x", B)], [2], id="joined"),
        pytest.param(
            [("x/1", A), ("x/2", B), ("x/3", C)], [("x/1", A), ("x/2", C)], [1, 3], id="one less"
        ),
        pytest.param(
            [("x/1", A), ("x/2", C)], [("x/1", A), ("x/2", B), ("x/3", C)], [1, 0, 2], id="one more"
        ),
        pytest.param([("x/1", A), ("x/2", B)], [("x/1", B), ("x/2", A)], [2, 1], id="swapped"),
        pytest.param([("x/1", A), ("x/2", B)], [("x/1", A), ("x/2", C)], [1, 2], id="part changed"),
        pytest.param([("x", A), ("x", A)], [("x", A), ("x", A)], [1, 2], id="twins"),
    ],
)
def test_each_counter_is_handed_out_once(
    before: list[tuple[str, str]], after: list[tuple[str, str]], expected: list[int]
) -> None:
    live = counted(*(mark(*each) for each in before))
    found = carried([mark(*each) for each in after], live)
    assert found == [(number, 10 * number) for number in expected]


def test_what_is_not_ours_gives_nothing() -> None:
    live = counted("", "theirs", "sipfw:x", "other:x#aaaaaaaa")
    assert carried([mark("x", A)], live) == [(0, 0)]
