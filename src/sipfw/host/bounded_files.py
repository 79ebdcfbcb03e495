"""Files of the host that may be anything: read whole up to a limit, and never waited for."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# modules.dep of a distribution's kernel is some 700 KB.
MODULE_LIST = 1 << 24


class OddFileError(Exception):
    """It is no file, or larger than what belongs there; the text says which."""


def read_at_most(path: Path, limit: int) -> str:
    """Return a file's text. Raises OddFileError, or OSError where it cannot be read."""
    # Asked before it is opened: opening some devices is an order to them (/dev/watchdog).
    _require_file(path, path.stat())
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _require_file(path, os.fstat(handle))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OddFileError(f"{path} is larger than {limit:,} bytes")
    return data.decode("utf-8", "replace")


def _require_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OddFileError(f"{path} is not a file")
