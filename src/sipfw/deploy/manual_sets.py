"""Puts what is banned and trusted by hand back into the sets of a firewall that went live."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.deploy.manual_list import Book, by_source, read_page
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.kernel.state.members import SetEntry, SetRemoval
from sipfw.kernel.state.timeouts import fitting
from sipfw.ruleset.source import prefix_in
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.deploy.manual_list import ManualEntry
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend
    from sipfw.kernel.state.members import Members
    from sipfw.ruleset.model import Ruleset

# What the kernel's clock and the host's may differ before an element gets its time anew: a part of
# what is left, since to load 100,000 elements takes seconds that none of them was told of.
_SECONDS = 2
_PART = 20
_MOST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class _Place:
    """The set that takes the addresses of a book, and how many per family."""

    set: str
    size: int


def put_back(chosen: Backend, ruleset: Ruleset, layout: Layout) -> list[Diagnostic]:
    """Put in what has not expired; return warnings. Raises nothing: the firewall itself is live."""
    warnings: list[Diagnostic] = []
    for book in Book:
        page = read_page(layout, book)
        warnings += page.faults
        if page.entries:
            place = _place(ruleset, book)
            kept = by_source(page, prefix_in(ruleset, place.set)) if place else page
            warnings += _put_back(chosen, place, book, list(kept.entries.values()))
    return warnings


def room_for(entries: Iterable[ManualEntry], size: int) -> list[ManualEntry]:
    """Return as many of each family as a set of this size takes, those that last longest."""
    longest = sorted(entries, key=lambda item: -item.until)
    found: list[ManualEntry] = []
    for version in (4, 6):
        found += [item for item in longest if item.address.version == version][:size]
    return found


def _put_back(
    chosen: Backend, place: _Place | None, book: Book, entries: Sequence[ManualEntry]
) -> list[Diagnostic]:
    if place is None:
        return [_warning(f"{_count(book, len(entries))} not in force: these rules have no set")]
    kept = room_for(entries, place.size)
    said = []
    if len(kept) < len(entries):
        lost = len(entries) - len(kept)
        said.append(_warning(f"{_count(book, lost)} not in force: the set takes {place.size:,}"))
    if place.set == names.SET_BANNED:
        said.append(_warning(f"{_count(book, len(kept))} on probation only: {_NO_WALL}"))
    try:
        members = chosen.members()
        # Where there is not room for all, one that is left out may be in.
        alone = place.set == book.value and len(kept) < len(entries)
        edits = _edits(members, place.set, kept, chosen.facts.sets, alone=alone)
        members.edit(edits)
    except BackendError as error:
        return [_warning(f"{_count(book, len(entries))} not in force: {error}")]
    return said


def _edits(
    members: Members, place: str, entries: Iterable[ManualEntry], sets: str, *, alone: bool
) -> list[SetEntry | SetRemoval]:
    """Put in who is not in a set, or not for his time; with `alone` take all others out."""
    now = time.time()
    inside = {item.address: item.left or 0 for item in members.read([place]).get(place, ())}
    # What was ordered in another backend may be longer than this one holds.
    wanted = {item.address: fitting(item.left(now), sets) for item in entries}
    edits: list[SetEntry | SetRemoval] = []
    if alone:
        edits += [SetRemoval(place, address) for address in inside if address not in wanted]
    edits += [
        SetEntry(place, address, left)
        for address, left in wanted.items()
        if left > 0 and abs(inside.get(address, 0) - left) > _tolerance(left)
    ]
    return edits


def _tolerance(left: int) -> int:
    return max(_SECONDS, min(left // _PART, _MOST_SECONDS))


_NO_WALL = "this generation is older than the first of them; apply a policy, or ban once more"


def _place(ruleset: Ruleset, book: Book) -> _Place | None:
    """Return the book's own set, or for bans the next best one."""
    sizes = {item.name: item.size for item in ruleset.sets}
    wanted = [book.value, names.SET_BANNED] if book is Book.BANS else [book.value]
    return next((_Place(name, sizes[name]) for name in wanted if name in sizes), None)


def _count(book: Book, count: int) -> str:
    words = ("ban", "bans") if book is Book.BANS else ("temporary trust", "temporary trusts")
    by_hand = " by hand" if book is Book.BANS else ""
    return f"{pluralize(count, *words)}{by_hand} {'is' if count == 1 else 'are'}"


def _warning(message: str) -> Diagnostic:
    return Diagnostic(message, severity=Severity.WARNING)
