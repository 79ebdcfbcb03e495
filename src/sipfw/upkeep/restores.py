"""The record of what was restored because somebody had taken it away: for history and metrics.

A file of its own: a generation's folder never changes, and a firewall that is restored is no new
generation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - an annotation that is read
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sipfw.host.files import read_private, write_atomically
from sipfw.plain_data import from_plain, to_plain

if TYPE_CHECKING:
    from sipfw.host.files import Layout

_FORMAT = 1
_KEPT = 50
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Restore:
    """One event: when (seconds since 1970), of which generation, what was lost, what came of it.

    `outcome` is `restored`, `failed` or `held`, with the reason behind a colon.
    """

    time: float
    generation: int | None
    lost: str
    outcome: str

    @property
    def worked(self) -> bool:
        """Tell whether the firewall was put back."""
        return self.outcome.startswith("restored")


@dataclass(frozen=True, slots=True)
class Restores:
    """All that is remembered: the count since the first apply, and the newest events, oldest first.

    `held` tells that restores are held back now, since they were undone too often. `left` is what
    the last restore could not put right, so that it is not tried again and again. `behind` are
    digests of the rules that stood behind our jumps at the last whole look, by place.
    """

    total: int = 0
    held: bool = False
    left: tuple[str, ...] = ()
    events: tuple[Restore, ...] = ()
    behind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def since(self, moment: float, now: float) -> int:
        """Count the tries between two moments; an event of the future says the clock was set."""
        return sum(
            moment <= item.time <= now
            for item in self.events
            if not item.outcome.startswith("held")
        )


def read_restores(layout: Layout) -> Restores:
    """Return what is remembered; a file that cannot be read is as good as none."""
    try:
        return _restores(json.loads(read_private(layout.restores)))
    except (OSError, ValueError, RecursionError):
        return Restores()


def write_restores(layout: Layout, restores: Restores) -> None:
    """Remember. Raises BackendError when the disk is full."""
    kept = replace(restores, events=restores.events[-_KEPT:])
    data = {"format": _FORMAT, **to_plain(kept)}
    write_atomically(layout.restores, json.dumps(data, indent=1) + "\n")


def _restores(data: object) -> Restores:
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise ValueError("another version")
    found = from_plain(data, Restores)
    events = [
        replace(item, lost=_printable(item.lost), outcome=_printable(item.outcome))
        for item in found.events[-_KEPT:]
    ]
    return replace(found, events=tuple(events))


def _printable(text: str) -> str:
    """Return what a terminal may be shown."""
    return "".join(c if c.isprintable() else "?" for c in text)[:_LONGEST]
