"""Whether somebody else than root may change a file that root is about to obey.

Judged are the open file, so that nothing can be put in its place afterwards, every folder on the
way to it, and every folder on the way to a link that leads there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = 0
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# As the kernel (MAXSYMLINKS in namei.h).
_MOST_LINKS = 40


def why_unsafe(path: Path, handle: int, *, writers: int = _OTHERS) -> str | None:
    """Say who else may change the file that `handle` is of, None where nobody may.

    `writers` are the bits of a mode that must not be set; without those of a group the file may
    belong to anybody.
    """
    found = os.fstat(handle)
    strict = bool(writers & stat.S_IWGRP)
    if strict and found.st_uid not in _owners():
        return f"belongs to user id {found.st_uid}, who may change it"
    if found.st_mode & writers:
        return (
            f"has mode {stat.S_IMODE(found.st_mode):o}, so that others than its owner may change it"
        )
    for folder, holds_it in _folders(path):
        try:
            seen = folder.stat()
        except OSError:
            # A pipe of the shell has a name under which nothing can be found.
            continue
        if strict and seen.st_uid not in _owners():
            return f"is in {folder}, which belongs to user id {seen.st_uid}, who may replace it"
        # In a sticky folder nobody replaces what is root's; but nothing keeps root's next file of
        # that name from being somebody else's.
        sticky = seen.st_mode & stat.S_ISVTX and not holds_it
        if seen.st_mode & writers and not sticky:
            mode = stat.S_IMODE(seen.st_mode)
            return f"is in {folder}, which has mode {mode:o}, so that others may replace it"
    return None


def _owners() -> set[int]:
    return {_ROOT, os.geteuid()}


def _folders(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield every folder on the way, and whether the file, or a link to it, stands in it."""
    seen: set[tuple[Path, bool]] = set()
    # The first of them hides no `..` behind a link, the second one shows every link.
    waiting = [path.resolve(), Path(os.path.abspath(path))]  # noqa: PTH100 - resolve() hides links
    for _ in range(_MOST_LINKS):
        if not waiting:
            return
        current = waiting.pop()
        for part in (current, *current.parents):
            place = part, part == current.parent
            if part != current and place not in seen:
                seen.add(place)
                yield place
            if part.is_symlink():
                target = part.parent / part.readlink() / current.relative_to(part)
                waiting.append(Path(os.path.abspath(target)))  # noqa: PTH100 - as above
