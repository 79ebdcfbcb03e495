"""The xtables lock, which iptables tools take and libiptc does not.

Without it a change that another tool makes between our refresh and our commit is lost without any
error when it leaves the number of rules the same.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_LOCK_FILE = "/run/xtables.lock"
POLL_SECONDS = 0.05


def lock_file() -> Path:
    """Return the lock that iptables of this environment uses; one for all network namespaces."""
    return Path(os.environ.get("XTABLES_LOCKFILE") or DEFAULT_LOCK_FILE)


@contextmanager
def xtables_lock(deadline_seconds: float) -> Iterator[None]:
    """Hold the xtables lock; give up with a BackendError that names the holder if it can."""
    path = lock_file()
    descriptor = _open(path)
    try:
        _acquire(descriptor, path, deadline_seconds)
        yield
    finally:
        # The file stays: removing it would let two processes lock two different inodes.
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise BackendError(f"{path}: permission denied", hint="run as root") from error
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror}") from error


def _acquire(descriptor: int, path: Path, deadline_seconds: float) -> None:
    deadline = time.monotonic() + deadline_seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= deadline:
            raise BackendError(
                f"{path}: another program holds the xtables lock ({_holder(path)}), "
                f"waited {deadline_seconds:g} s",
                hint="wait for it to finish or end it",
            )
        time.sleep(POLL_SECONDS)


def _holder(path: Path) -> str:
    """Name the process behind the lock, from /proc/locks; it may be gone already."""
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return "holder unknown"
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF; a waiter has "->" after the number.
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
            return f"pid {words[4]}{_command(words[4])}"
    return "holder unknown"


def _command(pid: str) -> str:
    try:
        return f", {Path('/proc', pid, 'comm').read_text(encoding='utf-8').strip()}"
    except OSError:
        return ""
