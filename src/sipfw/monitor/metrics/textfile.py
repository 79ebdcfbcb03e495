"""The file that node_exporter's textfile collector reads: replaced whole, readable by all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.files import cannot_write, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".prom"
# node_exporter does not run as root.
_MODE = 0o644


def write_textfile(path: Path, text: str) -> None:
    """Replace the file. Raises BackendError where it cannot or must not be written."""
    whole = path.absolute()
    try:
        _require_safe(whole)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomically(whole, text, _MODE)


def _require_safe(path: Path) -> None:
    """Refuse a missing folder, and a link by which somebody else would choose the place."""
    for link in _links(path):
        if link == path:
            raise BackendError(f"{path}: is a symbolic link", hint="name the file itself")
        folder = link.parent.stat()
        if folder.st_mode & 0o022 or folder.st_uid not in {0, os.geteuid()}:
            raise BackendError(
                f"{path}: {link} is a symbolic link that others than root may have made",
                hint="name a folder that only root can change",
            )
    if not path.parent.is_dir():
        raise BackendError(
            f"{path.parent}: no such folder",
            hint="make it, and start node_exporter with --collector.textfile.directory="
            f"{path.parent}",
        )


def _links(path: Path) -> Iterator[Path]:
    return (part for part in (path, *path.parents) if part.is_symlink())
