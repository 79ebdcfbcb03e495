"""Replaces a file of the operator's by its next version: same owner, same mode, all or nothing."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sipfw.errors import BackendError
from sipfw.host.files import cannot_write, sync_folder, write_through

# A policy of 100,000 peers takes less.
_LARGEST = 8 << 20


def read_owned(path: Path) -> bytes:
    """Read a plain file, of a link what it leads to. Raises BackendError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BackendError(f"{path}: is not a file")
            found = file.read(_LARGEST + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackendError(f"{path}: cannot be read: {reason}") from error
    if len(found) > _LARGEST:
        raise BackendError(f"{path}: has more than {_LARGEST >> 20} MiB")
    return found


def replace_owned(path: Path, before: bytes, after: str) -> None:
    """Write `after` where `before` still stands, with the owner and mode that the file has.

    A reader sees the old text or the new one. Raises BackendError, also for a file that somebody
    has changed meanwhile.
    """
    target = path.resolve()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            found = target.stat()
            # The owner first: a change of it takes bits of the mode away.
            os.fchown(handle, found.st_uid, found.st_gid)
            write_through(handle, after, stat.S_IMODE(found.st_mode))
            _require_unchanged(path, target, before)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def _require_unchanged(path: Path, target: Path, before: bytes) -> None:
    if read_owned(target) != before:
        raise BackendError(
            f"{path}: somebody has changed it meanwhile; nothing was written",
            hint="run the command again",
        )
