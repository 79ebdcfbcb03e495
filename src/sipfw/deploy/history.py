"""The generations with what became of each, for people and for machines. Changes nothing."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current
from sipfw.deploy.differences import differences, ordered_differences, summary
from sipfw.deploy.generations import (
    Damaged,
    Generation,
    list_generations,
    pin,
    read_generation,
    release,
)
from sipfw.deploy.none_active import HINT
from sipfw.deploy.repair import unfinished
from sipfw.deploy.stored_content import read_content
from sipfw.errors import BackendError
from sipfw.host.locks import state_lock
from sipfw.host.privilege import require_root
from sipfw.words import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sipfw.deploy.differences import Difference
    from sipfw.deploy.repair import Unfinished
    from sipfw.deploy.stored_content import StoredContent
    from sipfw.host.files import Layout


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One generation. `live` is what the record says; `seconds_left` until it is taken back."""

    number: int
    live: bool
    state: str
    generation: Generation | None
    seconds_left: float | None = None
    changed: str = ""


def history(layout: Layout) -> list[HistoryEntry]:
    """Return all generations, oldest first, with what each has changed.

    Raises BackendError where root is needed to look.
    """
    contents: dict[int, StoredContent | Damaged] = {}

    def content(number: int) -> StoredContent | Damaged:
        if number not in contents:
            contents[number] = read_content(layout, number)
        return contents[number]

    return [
        item
        if item.generation is None
        else replace(item, changed=_changed(item.generation, content))
        for item in states(layout)
    ]


def _changed(made: Generation, content: Callable[[int], StoredContent | Damaged]) -> str:
    after = content(made.number)
    if isinstance(after, Damaged):
        return ""
    if made.before is None:
        return "the first" if made.number == 1 else "no firewall was in force before"
    before = content(made.before)
    if isinstance(before, Damaged):
        return f"since generation {made.before}: {before.reason}"
    # Rules are compared where the policy does not tell: that takes ten times as long.
    return summary(ordered_differences(before, after) or differences(before, after))


def difference_of(
    layout: Layout, number: int, other: int | None
) -> tuple[int | None, list[Difference]]:
    """Return `other`, by default what was live before `number`, and what `number` changed since.

    Raises BackendError where one of them cannot be read.
    """
    after = _must_read(layout, number)
    if other is None:
        made = read_generation(layout, number)
        other = None if isinstance(made, Damaged) else made.before
    return other, differences(None if other is None else _must_read(layout, other), after)


def difference_between(layout: Layout, before: int | None, after: int | None) -> list[Difference]:
    """Return what differs, None being no firewall; nothing where one of them cannot be read."""
    found = [None if number is None else read_content(layout, number) for number in (before, after)]
    old, new = (None if isinstance(item, Damaged) else item for item in found)
    return [] if Damaged in map(type, found) else differences(old, new)


def keep_generation(layout: Layout, number: int) -> None:
    """Pin a generation, so that it is never pruned. Raises BackendError."""
    with _changing(layout):
        pin(layout, number)


def release_generation(layout: Layout, number: int) -> bool:
    """Unpin a generation; False where it was not pinned. Raises BackendError."""
    with _changing(layout):
        return release(layout, number)


@contextmanager
def _changing(layout: Layout) -> Iterator[None]:
    require_root()
    if not layout.state.exists():
        raise BackendError("sipfw has applied nothing yet", hint=HINT)
    with state_lock(layout, seconds=5.0):
        yield


def _must_read(layout: Layout, number: int) -> StoredContent:
    found = read_content(layout, number)
    if isinstance(found, Damaged):
        raise BackendError(
            f"generation {number} cannot be shown: {found.reason}", hint="see sipfw history"
        )
    return found


def states(layout: Layout) -> list[HistoryEntry]:
    """Return all generations, oldest first. Raises BackendError where root is needed to look."""
    found = list_generations(layout)
    live = current(layout).generation
    open_change = unfinished(layout) if layout.state.exists() else None
    return [_entry(item, live, open_change) for item in found]


def _entry(item: Generation | Damaged, live: int | None, change: Unfinished | None) -> HistoryEntry:
    is_live = item.number == live
    if isinstance(item, Damaged):
        return HistoryEntry(item.number, is_live, f"damaged: {item.reason}", None)
    if change is not None and change.journal.coming == item.number:
        if not change.open:
            return HistoryEntry(item.number, is_live, "being changed", item)
        left = change.journal.seconds_left()
        state = f"waits for sipfw confirm, {format_duration(left)}"
        return HistoryEntry(item.number, is_live, state, item, left)
    if item.confirmed:
        return HistoryEntry(item.number, is_live, "confirmed", item)
    if item.undone is not None:
        return HistoryEntry(item.number, is_live, f"taken back: {item.undone}", item)
    return HistoryEntry(item.number, is_live, "never live", item)
