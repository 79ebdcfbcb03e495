"""The generations with what became of each, for people and for machines. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current
from sipfw.deploy.generations import Damaged, Generation, list_generations
from sipfw.deploy.repair import unfinished
from sipfw.words import format_duration

if TYPE_CHECKING:
    from sipfw.deploy.repair import Unfinished
    from sipfw.host.files import Layout


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One generation. `live` is what the record says; `seconds_left` until it is taken back."""

    number: int
    live: bool
    state: str
    generation: Generation | None
    seconds_left: float | None = None


def history(layout: Layout) -> list[HistoryEntry]:
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
