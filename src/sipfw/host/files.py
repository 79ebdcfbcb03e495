"""Where sipfw keeps files, and how it writes them: below one root, root-only, atomically."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sipfw.errors import BackendError

_STATE = "var/lib/sipfw"
_REMOVED = "var/lib/sipfw-removed"
_SYSCTL = "etc/sysctl.d/60-sipfw.conf"
# A ruleset of 100,000 peers takes 20 MB.
_LARGEST = 1 << 28


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path that sipfw writes, below `root`."""

    root: Path

    @property
    def state(self) -> Path:
        """The folder of everything that sipfw remembers; its flock is the lock of all changes."""
        return self.root / _STATE

    @property
    def applied(self) -> Path:
        """What is live, as JSON."""
        return self.state / "applied.json"

    @property
    def sysctl_before(self) -> Path:
        """Values of our sysctls before the first apply."""
        return self.state / "sysctl.before"

    @property
    def generations(self) -> Path:
        """One folder per applied ruleset, by number; its flock says that a watchdog is alive."""
        return self.state / "generations"

    @property
    def removed(self) -> Path:
        """What removals left: one folder each, by number, with generations and bans by hand."""
        return self.root / _REMOVED

    @property
    def pending(self) -> Path:
        """The change that is under way or waits to be confirmed."""
        return self.state / "pending.json"

    @property
    def undo(self) -> Path:
        """The same journal once it was decided to go back."""
        return self.state / "undo.json"

    @property
    def trusted_names(self) -> Path:
        """The host names that are trusted for a time."""
        return self.state / "trust-names.json"

    @property
    def offenders(self) -> Path:
        """Who was banned by hand before, and how often."""
        return self.state / "offenders.json"

    @property
    def names(self) -> Path:
        """What host names meant when they were last resolved."""
        return self.state / "names.json"

    @property
    def restores(self) -> Path:
        """What was put back because somebody had taken it away."""
        return self.state / "restores.json"

    @property
    def readings(self) -> Path:
        """Earlier looks at the counters, one file each, by the time they were taken."""
        return self.state / "readings"

    @property
    def events(self) -> Path:
        """Who was dropped or banned lately: an SQLite file, and its journal beside it."""
        return self.state / "events.sqlite"

    @property
    def sysctl_file(self) -> Path:
        """Sysctls for the next boot."""
        return self.root / _SYSCTL


def require_writable(layout: Layout) -> None:
    """Raise BackendError where the record of an apply could not be written; create nothing."""
    for path in (layout.applied, layout.generations / "1", layout.sysctl_file):
        folder = next(parent for parent in path.parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise BackendError(
                f"{path}: cannot be written: {folder} is read-only",
                hint="nothing was changed; use --root for another place",
            )


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old text or the new one, also after a power cut.

    When it returns, the new text outlives a power cut. Raises BackendError when the disk is full
    or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            write_through(handle, text, mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_through(handle: int, text: str, mode: int = 0o600) -> None:
    """Write to an open descriptor and close it; the text has reached the disk then."""
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have renames and removals in a folder reach the disk in the order they were made."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError) -> BackendError:
    """Say which file could not be written and why."""
    reason = (error.strerror or str(error)).lower()
    return BackendError(f"{path}: cannot be written: {reason}")


def read_private(path: Path) -> str:
    """Read a file of ours. Raises OSError, or ValueError for one that others may have changed."""
    # A pipe or a link in the place of the file must neither hang nor lead elsewhere.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is not a file")
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            raise ValueError(f"{path.name} may be written by others than root")
        if found.st_size > _LARGEST:
            raise ValueError(f"{path.name} is too large")
        return file.read()


def sweep(folder: Path) -> None:
    """Remove what a killed writer left; everything with a dot is a file in the making."""
    for path in folder.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
