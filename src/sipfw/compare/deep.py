"""Kernel listing against kernel listing: the live rules, and the wanted ones as loaded elsewhere.

No listing comes from a record, so what nobody wrote down is compared as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from sipfw.compare.compare import compare
from sipfw.compare.drift import Drift, DriftKind, drift_in
from sipfw.compare.expected import with_jump_lines, with_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.compare.expected import Expectation
    from sipfw.compare.live import Live
    from sipfw.compare.sets import SetPair

# The words of each set's definition, without those that the kernel chooses.
Definitions: TypeAlias = Mapping[str, tuple[str, ...]]


def as_listed(wanted: Expectation, live: Live) -> Expectation:
    """Return it in the kernel's own words: `live` is nothing else than `wanted`, loaded."""
    elements = {item.name: item.elements for item in live.sets}
    listed = with_jump_lines(with_lines(wanted, live), live)
    return replace(
        listed,
        sets=tuple(
            replace(item, elements=tuple(sorted(elements.get(item.name) or ())))
            if item.elements is not None
            else item
            for item in wanted.sets
        ),
    )


def with_recorded(
    wanted: Expectation, recorded: Expectation, followed: frozenset[str]
) -> Expectation:
    """Take from the record what an empty namespace cannot know.

    That is the policies of the host's built-in chains, and the members of the sets with these
    names: they follow host names and lists, and may have outgrown the size that the set began with.
    """
    known = {item.name: item for item in recorded.sets}
    return replace(
        wanted,
        policies=recorded.policies,
        sets=tuple(
            replace(item, options=known[item.name].options, elements=known[item.name].elements)
            if item.name in followed & known.keys()
            else item
            for item in wanted.sets
        ),
    )


def drift_by_listing(
    wanted: Expectation, meant: Definitions, live: Live, now: Definitions
) -> list[Drift]:
    """Return how the live rules and sets differ from the wanted ones."""
    found = compare(wanted, live)
    return [*drift_in(found), *_definitions(found.sets, meant, now)]


def _definitions(sets: Iterable[SetPair], meant: Definitions, now: Definitions) -> Iterator[Drift]:
    """Name sets whose definition differs in words that the comparison does not look at."""
    for pair in sets:
        item = pair.wanted
        old, new = meant.get(item.name), now.get(item.name)
        said = pair.found is None or pair.other_type or pair.header
        if old is None or new is None or old == new or said:
            continue
        gone = " ".join(word for word in old if word not in new) or "nothing"
        more = " ".join(word for word in new if word not in old) or "nothing"
        yield Drift(DriftKind.CHANGED, "set", item.name, f"{more}, not {gone}", item.origin)
