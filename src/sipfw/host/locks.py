"""Locks on folders of ours: whoever dies loses them, so they also tell who is alive.

A flock belongs to an open file, not to a process id that could be given to somebody else, and a
folder needs no file that would have to be removed.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.files import cannot_write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.host.files import Layout

_POLL = 0.02
# A watchdog looks at the journal for a moment when a change has ended; that is no other command.
_GRACE = 0.5


@contextmanager
def state_lock(layout: Layout, seconds: float = _GRACE) -> Iterator[None]:
    """Be the only one who changes the state folder and the firewall.

    Raises BackendError that names the holder.
    """
    with try_state_lock(layout, seconds) as free:
        if not free:
            raise BackendError(
                f"another sipfw is changing the firewall ({_holder(layout.state)})",
                hint="wait for it to finish; nothing was changed",
            )
        yield


@contextmanager
def try_state_lock(layout: Layout, seconds: float) -> Iterator[bool]:
    """Hold the same lock; yields False where another one kept it."""
    with _folder(layout.state) as handle:
        yield _acquired(handle, seconds)


@contextmanager
def watchdog_lock(layout: Layout, seconds: float) -> Iterator[bool]:
    """Hold what only a watchdog holds; yields False where another one kept it."""
    with _folder(layout.generations) as handle:
        yield _acquired(handle, seconds)


def watchdog_is_alive(layout: Layout) -> bool:
    """Tell whether a watchdog watches the journal."""
    try:
        with watchdog_lock(layout, 0.0) as free:
            return not free
    except BackendError:
        return False


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _acquired(handle: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        else:
            break
    # A folder that `remove` deleted meanwhile would lock nobody out who makes it anew.
    if os.fstat(handle).st_nlink == 0:
        raise BackendError("sipfw was removed meanwhile", hint="run it again")
    return True


def _holder(folder: Path) -> str:
    """Name the process behind a lock, from /proc/locks; it may be gone already."""
    try:
        found = folder.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return "holder unknown"
    # proc_locks(5): 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    for line in lines:
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5:6] == [f"{device}:{found.st_ino}"]:
            return f"pid {words[4]}{_command(words[4])}"
    return "holder unknown"


def _command(pid: str) -> str:
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    named = [Path(os.fsdecode(word)).name for word in words if word]
    text = " ".join(named[named.index("sipfw") :] if "sipfw" in named else named[:1])
    return f", {''.join(c if c.isprintable() else '?' for c in text[:60])}" if text else ""
