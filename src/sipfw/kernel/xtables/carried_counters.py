"""Which counters the rules of a chain take over from those that stood in it before."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, TypeAlias

from sipfw.lower.naming import base_id, split_comment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.kernel.xtables.libiptc.table import TableEntry
    from sipfw.kernel.xtables.save_text import SavedRule
    from sipfw.lower.xtables import XRule

Counters: TypeAlias = "tuple[int, int]"
_Mark: TypeAlias = "tuple[str, str]"


def carried_by(rules: Iterable[XRule], live: Iterable[SavedRule | TableEntry]) -> list[Counters]:
    """Return packets and bytes for each of these rules, from those that it replaces."""
    before = [(rule.comment, rule.counters) for rule in live if rule.comment]
    return carried([rule.comment for rule in rules], before)


def carried(wanted: Sequence[str], live: Iterable[tuple[str, Counters]]) -> list[Counters]:
    """Return packets and bytes for each wanted comment; each live rule is handed out once.

    A rule that the policy changes goes on counting under its id. One that lowering splits gets
    other numbers with every peer that comes or goes, so a part with equal content goes first.
    """
    marks = [split_comment(text) for text in wanted]
    old = [(mark, counters) for text, counters in live if (mark := split_comment(text))]
    found: dict[int, Counters] = {}
    taken: set[int] = set()
    for key in (_whole, _part, _id):
        heaps: defaultdict[object, deque[int]] = defaultdict(deque)
        for number, (mark, _) in enumerate(old):
            if number not in taken:
                heaps[key(mark)].append(number)
        for place, wish in enumerate(marks):
            if wish is not None and place not in found and (heap := heaps[key(wish)]):
                number = heap.popleft()
                taken.add(number)
                found[place] = old[number][1]
    return [found.get(place, (0, 0)) for place in range(len(marks))]


def _whole(mark: _Mark) -> object:
    return mark


def _part(mark: _Mark) -> object:
    return base_id(mark[0]), mark[1]


def _id(mark: _Mark) -> object:
    return mark[0]
