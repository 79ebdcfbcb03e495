"""What a removal leaves behind: its generations and bans by hand, for the apply that comes again.

Trust for a time is not among them: none may come back unasked. The folder stands beside that of
the state, which a removal takes away whole.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.generations import list_generations
from sipfw.deploy.manual_list import Book, read_page, read_page_of, write_page, write_page_to
from sipfw.errors import BackendError
from sipfw.host.files import cannot_write, sync_folder
from sipfw.host.locks import state_lock
from sipfw.host.privilege import require_root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sipfw.deploy.manual_list import ManualEntry
    from sipfw.host.files import Layout
    from sipfw.ruleset.addresses import IpAddress

# Somebody may remove and apply by turns to look for a fault; the archive must not grow with it.
KEPT = 3


@dataclass(frozen=True, slots=True)
class Inventory:
    """How much there is of what operators have made on this host."""

    generations: int
    bans: int
    trusts: int


@dataclass(frozen=True, slots=True)
class Archive:
    """One folder of the archive, with the generations and bans by hand that are in it."""

    folder: Path
    generations: int
    bans: int


def inventory(layout: Layout) -> Inventory:
    """Count what a removal ends. Raises BackendError where root is needed to look."""
    require_root()
    pages = {book: len(read_page(layout, book).entries) for book in Book}
    return Inventory(len(list_generations(layout)), pages[Book.BANS], pages[Book.TRUSTS])


def store(layout: Layout, bans: Mapping[IpAddress, ManualEntry]) -> Archive | None:
    """Move the generations into the archive, and these bans; None where there is neither.

    Raises BackendError. The bans come first, so that a kill half way leaves the generations where
    they are.
    """
    numbers = [item.number for item in list_generations(layout)]
    if not numbers and not bans:
        return None
    folder = layout.removed / str(max(_numbers(layout), default=0) + 1)
    try:
        layout.removed.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
        if bans:
            write_page_to(_bans(folder), bans)
        if numbers:
            # The state folder may be a file system of its own.
            shutil.move(layout.generations, folder / "generations")
        sync_folder(folder)
        sync_folder(layout.removed)
    except OSError as error:
        raise cannot_write(folder, error) from error
    for number in _numbers(layout)[:-KEPT]:
        _discard(layout.removed / str(number))
    return Archive(folder, len(numbers), len(bans))


def newest(layout: Layout) -> Archive | None:
    """Return the archive of the last removal, None where there is none that root may read."""
    numbers = _numbers(layout)
    if not numbers:
        return None
    folder = layout.removed / str(numbers[-1])
    return Archive(folder, len(_generations(folder)), len(read_page_of(_bans(folder)).entries))


def take_up(layout: Layout) -> Archive | None:
    """Bring the last archive back: its bans that still run, and its generations to history.

    Where there are generations again, whose numbers would be the same, those of the archive stay
    in it. Raises BackendError where something is in force: it is made by an apply, and not twice.
    """
    require_root()
    found = newest(layout)
    if found is None:
        return None
    with state_lock(layout, seconds=5.0):
        if layout.applied.exists():
            raise BackendError(
                "a firewall of sipfw is in force, and an archive is taken up before one is",
                hint=f"what was archived is in {found.folder}",
            )
        page = read_page_of(_bans(found.folder))
        if page.entries:
            write_page(layout, Book.BANS, {**page.entries, **read_page(layout, Book.BANS).entries})
        moved = 0 if list_generations(layout) else _move_back(layout, found.folder)
        if moved == found.generations:
            _discard(found.folder)
            with suppress(OSError):
                layout.removed.rmdir()
    return Archive(found.folder, moved, len(page.entries))


def purge(layout: Layout) -> None:
    """Delete every archive."""
    for number in _numbers(layout):
        _discard(layout.removed / str(number))
    with suppress(OSError):
        layout.removed.rmdir()


def _move_back(layout: Layout, folder: Path) -> int:
    found = _generations(folder)
    try:
        layout.generations.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in found:
            shutil.move(path, layout.generations / path.name)
        sync_folder(layout.generations)
    except OSError as error:
        raise cannot_write(layout.generations, error) from error
    return len(found)


def _generations(folder: Path) -> list[Path]:
    with suppress(OSError):
        found = [path for path in (folder / "generations").iterdir() if path.name.isdecimal()]
        return sorted(found, key=lambda path: int(path.name))
    return []


def _bans(folder: Path) -> Path:
    return folder / "bans.json"


def _numbers(layout: Layout) -> list[int]:
    with suppress(OSError):
        names = [path.name for path in layout.removed.iterdir()]
        return sorted(int(name) for name in names if re.fullmatch(r"[1-9][0-9]{0,8}", name))
    return []


def _discard(folder: Path) -> None:
    """Delete one archive; renamed first, so that a kill half way leaves no half of it."""
    hidden = folder.parent / f".{folder.name}.gone"
    with suppress(OSError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
