"""Sets beside sets: header and elements. One that packets fill is compared by its header alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.compare.expected import ExpectedSet
    from sipfw.compare.live import LiveSetState

# What changes what a set does. The kernel may grow hashsize by itself, and newer ipset prints two
# fields of its own.
_VALUED = frozenset({"family", "maxelem", "timeout", "netmask", "bitmask"})
_FLAGS = frozenset({"counters"})


@dataclass(frozen=True, slots=True)
class HeaderDifference:
    """A word of a header that differs; None where one side has none, empty for a flag."""

    name: str
    wanted: str | None
    found: str | None


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements that are not there and should be, and those that should not, both sorted."""

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Tell whether nothing differs."""
        return not self.missing and not self.extra


NOTHING = Elements()


@dataclass(frozen=True, slots=True)
class SetPair:
    """A wanted set and the live one, None where there is none."""

    wanted: ExpectedSet
    found: LiveSetState | None
    other_type: bool = False
    header: tuple[HeaderDifference, ...] = ()
    elements: Elements = NOTHING


def pair_sets(
    wanted: Iterable[ExpectedSet], found: Iterable[LiveSetState]
) -> tuple[tuple[SetPair, ...], tuple[LiveSetState, ...]]:
    """Pair sets by their names; return the pairs, and those that nobody wants."""
    live = {item.name: item for item in found}
    pairs = tuple(_pair(item, live.pop(item.name, None)) for item in wanted)
    return pairs, tuple(live.values())


def compare_elements(wanted: Iterable[str], found: Iterable[str]) -> Elements:
    """Compare what a set should hold with what it holds."""
    meant, there = frozenset(wanted), frozenset(found)
    return Elements(tuple(sorted(meant - there)), tuple(sorted(there - meant)))


def _pair(wanted: ExpectedSet, found: LiveSetState | None) -> SetPair:
    if found is None:
        return SetPair(wanted, None)
    compared = wanted.elements is not None and found.elements is not None
    return SetPair(
        wanted,
        found,
        wanted.type != found.type,
        tuple(_header(wanted, found)),
        compare_elements(wanted.elements or (), found.elements or ()) if compared else NOTHING,
    )


def _header(wanted: ExpectedSet, found: LiveSetState) -> Iterator[HeaderDifference]:
    new, old = _options(wanted.options), _options(found.header)
    for name in sorted(_VALUED | _FLAGS):
        if new.get(name) != old.get(name):
            yield HeaderDifference(name, new.get(name), old.get(name))


def _options(words: tuple[str, ...]) -> dict[str, str]:
    """Read `family inet maxelem 65536 timeout 60 counters`; a flag's value is empty."""
    options = {}
    for word, value in pairwise((*words, "")):
        if word in _VALUED:
            options[word] = value
        elif word in _FLAGS:
            options[word] = ""
    return options
