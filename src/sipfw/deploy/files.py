"""Where sipfw keeps files, and how it writes them: below one root, root-only, atomically."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sipfw.errors import BackendError

_STATE = "var/lib/sipfw"
_SYSCTL = "etc/sysctl.d/60-sipfw.conf"


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path that sipfw writes, below `root`."""

    root: Path

    @property
    def applied(self) -> Path:
        """What the last apply made live, as JSON."""
        return self.root / _STATE / "applied.json"

    @property
    def sysctl_before(self) -> Path:
        """Values of our sysctls before the first apply."""
        return self.root / _STATE / "sysctl.before"

    @property
    def sysctl_file(self) -> Path:
        """Sysctls for the next boot."""
        return self.root / _SYSCTL


def require_writable(layout: Layout) -> None:
    """Raise BackendError where the record of an apply could not be written; create nothing."""
    for path in (layout.applied, layout.sysctl_file):
        folder = next(parent for parent in path.parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise BackendError(
                f"{path}: cannot be written: {folder} is read-only",
                hint="nothing was changed; use --root for another place",
            )


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old text or the new one, also after a power cut.

    Raises BackendError when the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackendError(f"{path}: cannot be written: {reason}") from error
