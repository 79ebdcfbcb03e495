"""Programs that a killed sipfw has left running: they may still change the kernel.

A killed process takes none of its children along. An `nft` that is loading a large set would
commit after a rollback that did not wait for it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.journal import boot_id

if TYPE_CHECKING:
    from sipfw.deploy.journal import Journal

# The longest deadline that a backend gives a program.
_LONGEST = 60.0
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    started: int


def wait_for_orphans(journal: Journal, seconds: float = _LONGEST) -> None:
    """Return when the programs of a dead command have ended, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while orphans(journal) and time.monotonic() < deadline:
        time.sleep(_POLL)


def orphans(journal: Journal, proc: Path = Path("/proc")) -> list[int]:
    """Name the processes of the command's group that began after the journal and lost their parent.

    What a shell script starts beside sipfw is in the same group, but has the script as its parent.
    """
    if journal.boot != boot_id():
        return []
    members = {item.pid: item for item in _members(journal.group, proc)}
    since = int(journal.started * os.sysconf("SC_CLK_TCK"))
    return [
        item.pid
        for item in members.values()
        if item.started >= since and item.parent not in members and item.pid != os.getpid()
    ]


def _members(group: int, proc: Path) -> list[_Process]:
    found = []
    for path in proc.glob("[0-9]*/stat"):
        try:
            # proc_pid_stat(5): the name may hold spaces and brackets, what follows it does not.
            words = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if len(words) > 19 and words[2] == str(group) and words[0] not in {"Z", "X"}:
            found.append(_Process(int(path.parent.name), int(words[1]), int(words[19])))
    return found
