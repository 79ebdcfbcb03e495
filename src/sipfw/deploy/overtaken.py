"""Whether somebody else has changed the firewall since this command was called.

A relative order, one step back, is about what its giver saw. Two people who give it at the same
moment mean the same step.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current
from sipfw.deploy.journal import boottime
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.host.files import Layout

_STAT = Path("/proc/self/stat")
# proc_pid_stat(5): field 22, counted from 1; the name in brackets may hold spaces.
_STARTTIME = 22 - 3
# The kernel rounds a start down to its ticks, and a file's time to a jiffy.
_ROUNDING = 0.02


def standing_now(layout: Layout) -> int | None:
    """Return the generation on record, to be compared once the lock is held."""
    return current(layout).generation


def refuse_overtaken(layout: Layout, seen: int | None, called: float | None) -> None:
    """Raise BackendError where the record is another one than when the order was given.

    `called` is when that was, by the host's clock: a command needs some time before it can look.
    A record from the future is of a clock that was set back, and tells nothing.
    """
    now = current(layout).generation
    try:
        written = layout.applied.stat().st_mtime
    except OSError:
        written = 0.0
    later = called is not None and called + _ROUNDING < written <= time.time()
    if now == seen and not later:
        return
    what = "no firewall of sipfw is" if now is None else f"generation {now} is"
    raise BackendError(
        f"somebody else has changed the firewall meanwhile: {what} in force; nothing was changed",
        hint="see sipfw history, and run sipfw rollback again if that is still too new",
    )


def process_started() -> float:
    """Return when this process began, by the host's clock; now where the kernel does not say."""
    try:
        words = _STAT.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = int(words[_STARTTIME])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - (boottime() - ticks / os.sysconf("SC_CLK_TCK"))
