"""The record of a change that is under way: what was live, what is coming, until when to wait.

It is written before the kernel is touched. Whoever ends a change takes the file away by a rename:
keeping puts it into the generation's folder as the mark of confirmation, going back makes it
`undo.json`. A rename has one winner, so a confirmation and a rollback cannot both succeed.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipfw.host.files import cannot_write, read_private, sync_folder, write_atomically
from sipfw.plain_data import NotPlainDataError, from_plain

if TYPE_CHECKING:
    from sipfw.host.files import Layout

FORMAT = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Phase(StrEnum):
    """How far a change has come."""

    CHANGING = "changing"
    WAITING = "waiting"


def boottime() -> float:
    """Return the seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what identifies this boot of the kernel."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Journal:
    """One change. Times are seconds of CLOCK_BOOTTIME, which nobody can set, in boot `boot`.

    `before` and `coming` are generations, None for no firewall. `backends` are those in which
    either of the two may have left something. `group` is the process group of the command;
    `forced` tells that whoever it locks out was named and accepted.
    """

    operation: str
    before: int | None
    coming: int | None
    backends: tuple[str, ...]
    phase: Phase = Phase.CHANGING
    deadline: float | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    boot: str = field(default_factory=boot_id)
    started: float = field(default_factory=boottime)
    group: int = field(default_factory=os.getpgrp)
    forced: bool = False

    @property
    def waits(self) -> bool:
        """Tell whether it is live, whole, in this boot, and only lacks its confirmation."""
        return self.phase is Phase.WAITING and self.boot == boot_id()

    def seconds_left(self) -> float:
        """Return the time until it is taken back; 0 when that time has come."""
        if not self.waits or self.deadline is None:
            return 0.0
        return max(0.0, self.deadline - boottime())


def write(layout: Layout, journal: Journal) -> None:
    """Make it the change under way. Raises BackendError where it cannot be written."""
    data = {"format": FORMAT, **asdict(journal)}
    write_atomically(layout.pending, json.dumps(data, indent=1) + "\n")


def read(path: Path) -> Journal | None:
    """Return a journal, None when there is none. Raises ValueError for a damaged one."""
    try:
        data = json.loads(read_private(path))
    except FileNotFoundError:
        return None
    except (OSError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    return _journal(data, path.name)


def keep(layout: Layout, number: int) -> bool:
    """End the change by keeping it: generation `number` is confirmed. False if it is gone."""
    return _taken(layout, layout.generations / str(number) / "confirmed.json")


def turn_back(layout: Layout) -> bool:
    """End the change by going back, which `undo.json` says until it is done."""
    return _taken(layout, layout.undo)


def drop(layout: Layout) -> None:
    """Forget the change: it has been undone, or has touched nothing."""
    for path in (layout.pending, layout.undo):
        try:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error


def _taken(layout: Layout, target: Path) -> bool:
    try:
        layout.pending.rename(target)
        sync_folder(target.parent)
        sync_folder(layout.state)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot_write(target, error) from error
    return True


def _journal(data: Any, name: str) -> Journal:
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"{name} is not a journal of this version")
    try:
        # A version before this one did not write `forced`.
        return from_plain(data, Journal, {"forced"})
    except NotPlainDataError as error:
        raise ValueError(f"{name} is damaged") from error
