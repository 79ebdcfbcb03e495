"""Which members of a list kept their order: what else was moved."""

from __future__ import annotations

from bisect import bisect_left


def kept_in_order(order: list[int]) -> set[int]:
    """Return the members of a longest increasing subsequence of distinct numbers.

    Patience sorting: a chain of a host without ipset may hold thousands of rules.
    """
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for value in order:
        place = bisect_left(tails, value)
        before[value] = tails[place - 1] if place else None
        tails[place : place + 1] = [value]
    kept: set[int] = set()
    at = tails[-1] if tails else None
    while at is not None:
        kept.add(at)
        at = before[at]
    return kept
