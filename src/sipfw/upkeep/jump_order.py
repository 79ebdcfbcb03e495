"""Whether our jump in a chain of iptables was moved behind rules that stood behind it.

A rule that somebody puts in front of it stays there (decision 6). A program that writes the chain
anew in another order has put nothing there: it has taken us away from the front. The two differ in
whether more of the rules that were behind us at an earlier look are in front now than behind.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sipfw.compare.drift import Drift, DriftKind
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sipfw.compare.live import Live, LiveJump

Behind = dict[str, tuple[str, ...]]

# A host with more rules in one chain than these gets an answer for the first ones.
_MOST = 1000
_FAMILIES = {Family.IP: "IPv4", Family.IP6: "IPv6"}


def behind(live: Live) -> Behind:
    """Return digests of the rules behind each of our jumps, by its place."""
    return {
        _place(jump): tuple(_digest(rule.line) for rule in jump.after[:_MOST])
        for jump in live.jumps
        if jump.after
    }


def moved(
    live: Live, differences: Iterable[Drift], before: Mapping[str, Sequence[str]]
) -> Iterator[tuple[LiveJump, Drift]]:
    """Yield our jumps behind a rule that lets packets pass and stood behind them, with a word."""
    passed = {
        item.where for item in differences if item.kind is DriftKind.MOVED and item.what == "jump"
    }
    for jump in live.jumps:
        place = _place(jump)
        known = frozenset(before.get(place, ()))
        overtaken = [rule.line for rule in jump.before if _digest(rule.line) in known]
        stay = sum(_digest(rule.line) in known for rule in jump.after)
        if place in passed and len(overtaken) > stay:
            detail = f"behind a rule that stood behind it: {overtaken[0]}"
            yield jump, Drift(DriftKind.MOVED, "jump", place, detail)


def _place(jump: LiveJump) -> str:
    return f"{_FAMILIES[jump.family]} {jump.table} {jump.hook}"


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode("utf-8", "surrogateescape")).hexdigest()[:12]
