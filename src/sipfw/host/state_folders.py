"""Folders of ours that others could look into, or write to, are closed again."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.host.files import Layout

_CLOSED = 0o700


def close_folders(layout: Layout) -> list[str]:
    """Give them back to root, with mode 700; return what was mended.

    What is in them needs no judgement here: `read_private` refuses a file that others may change.
    """
    folders = (layout.state, layout.generations, layout.readings)
    return [text for folder in folders if (text := _closed(folder)) is not None]


def _closed(folder: Path) -> str | None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            mode, own = stat.S_IMODE(found.st_mode), found.st_uid == os.geteuid()
            if own and not mode & 0o077:
                return None
            if not own:
                os.fchown(handle, os.geteuid(), os.getegid())
            os.fchmod(handle, _CLOSED)
        finally:
            os.close(handle)
        was = f"had mode {mode:o}" if own else f"belonged to user id {found.st_uid}"
        return f"mended: {folder} {was}; now only root may look into it"
    return None
