"""The file of events: opened with care, and a new one where it is damaged.

The journal is SQLite's oldest, DELETE: one short write a minute gains nothing by WAL, which would
leave two more files beside it and could not be read on a disk that is read-only.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeVar

from sipfw.errors import BackendError
from sipfw.host.files import cannot_write

try:
    import sqlite3
except ImportError as error:
    # A Python that was built where SQLite's headers were missing. Every user of this imports it
    # where it can say so.
    raise BackendError("this Python was built without its module sqlite3") from error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sipfw.host.files import Layout

T = TypeVar("T")

SCHEMA = (
    (
        "CREATE TABLE events (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, rule TEXT NOT NULL,"
        " source TEXT NOT NULL, low TEXT NOT NULL, high TEXT NOT NULL, layer TEXT NOT NULL,"
        " reason TEXT NOT NULL, who TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL,"
        " until REAL, ends REAL NOT NULL, packets INTEGER NOT NULL, sources INTEGER NOT NULL,"
        " known INTEGER NOT NULL, freed TEXT NOT NULL)"
    ),
    "CREATE INDEX events_by_end ON events (kind, ends)",
)
# Pages of 4 KiB: twice of what the most rows take.
_MOST_PAGES = 16_384
_LONGEST_VALUE = 1 << 16
_LARGEST = 1 << 28
# How long another sipfw may be writing.
_PATIENCE = 2.0
_KEPT_ASIDE = 3
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _DamagedError(Exception):
    """The file is none of ours, or no longer."""


class EventFile:
    """The file of one state folder. `say` is told what the operator must know of it."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self._path = layout.events
        self._say = say

    def ask(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Read; None where there is no file. Raises BackendError."""
        return self._tried(work, write=False) if os.path.lexists(self._path) else None

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Read and write, all or nothing; None where sipfw has no folder. Raises BackendError."""
        return self._tried(work, write=True) if self._path.parent.is_dir() else None

    def _tried(self, work: Callable[[sqlite3.Connection], T], *, write: bool) -> T | None:
        try:
            try:
                return self._done(work, write=write)
            except _DamagedError:
                self._move_aside()
                return self._done(work, write=True) if write else None
        except sqlite3.Error as error:
            raise BackendError(f"{self._path}: {_plain(error)}") from error
        except _DamagedError as error:
            raise BackendError(f"{self._path}: {error}") from error
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _done(self, work: Callable[[sqlite3.Connection], T], *, write: bool) -> T | None:
        _require_sound(self._path, write=write)
        uri = f"{self._path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
            ) as base:
                _guard(base)
                base.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                found = work(base) if _has_schema(base, write=write) else None
                base.execute("COMMIT")
                return found
        except sqlite3.Error as error:
            if _code(error) in _DAMAGE:
                raise _DamagedError("is damaged") from error
            raise

    def _move_aside(self) -> None:
        """Give the file another name, and its journal: a new file would play it back."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{int(time.time())}")
        for end in ("-journal", ""):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + end).replace(f"{aside}{end}")
        older = sorted(self._path.parent.glob(f"{self._path.name}.damaged-*[0-9]"))
        for path in older[:-_KEPT_ASIDE]:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        self._say(f"{self._path} was damaged: it is {aside.name} now, and a new one has begun")


def _require_sound(path: Path, *, write: bool) -> None:
    """Make the file, or refuse one that others may have put there. Raises BackendError, OSError.

    SQLite itself follows links. The folder is root's alone, so nobody comes between.
    """
    flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
    for each in (path, path.with_name(f"{path.name}-journal")):
        if each != path and not os.path.lexists(each):
            continue
        handle = os.open(each, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(handle)
        finally:
            os.close(handle)
        if not stat.S_ISREG(found.st_mode):
            raise BackendError(f"{each}: is not a file")
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            raise BackendError(f"{each}: may be written by others than root")
        if found.st_size > _LARGEST:
            raise BackendError(f"{each}: has more than {_LARGEST >> 20} MiB")


def _guard(base: sqlite3.Connection) -> None:
    """Believe nothing that the file says of functions, sizes or cells."""
    base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    base.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    base.execute("PRAGMA trusted_schema = OFF")
    base.execute("PRAGMA cell_size_check = ON")
    base.execute(f"PRAGMA max_page_count = {_MOST_PAGES}")


def _has_schema(base: sqlite3.Connection, *, write: bool) -> bool:
    """Tell whether there are events; make room for them in a new file."""
    found = {row[0] for row in base.execute("SELECT sql FROM sqlite_master LIMIT 10")}
    if not found and write:
        for line in SCHEMA:
            base.execute(line)
    elif found and found != set(SCHEMA):
        raise _DamagedError("is not as this version of sipfw writes it")
    return bool(found) or write


def _code(error: sqlite3.Error) -> int:
    """Return the primary code (sqlite.org/rescode.html); 0 for a fault of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _plain(error: sqlite3.Error) -> str:
    """Say in a few words why SQLite failed."""
    words = {
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_READONLY: "is read-only",
        sqlite3.SQLITE_BUSY: "another sipfw is writing to it",
        sqlite3.SQLITE_IOERR: "the disk does not take it: no room left, or it fails",
    }
    return words.get(_code(error), str(error))
