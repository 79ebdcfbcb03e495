"""Takes our rules out of one saved file when the operator asks; a copy is kept beside it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.files import cannot_write, sync_folder
from sipfw.host.privilege import require_root
from sipfw.saved.find import Unread, form_of, read_text
from sipfw.saved.nft_dump import nft_dump
from sipfw.saved.places import Form
from sipfw.saved.xtables_dump import xtables_dump

if TYPE_CHECKING:
    from sipfw.host.files import Layout


def clean(layout: Layout, path: Path) -> Path | None:
    """Write a file anew without our rules and return the copy; None where it held none.

    Owner and mode stay. Raises BackendError for a file that no service of this host loads rules
    from, for a symbolic link, and for one that cannot be read or written.
    """
    require_root()
    form = form_of(layout.root, path)
    if form is None or form in {Form.OTHER, Form.IPSET}:
        raise BackendError(
            f"{path}: not a file of rules that a service of this host loads",
            hint="see sipfw saved",
        )
    if path.is_symlink():
        raise BackendError(f"{path}: is a link to {path.resolve()}", hint="name that file")
    text = read_text(path)
    if isinstance(text, Unread):
        raise BackendError(text.reason)
    if "\ufffd" in text:
        raise BackendError(f"{path}: is not UTF-8 text", hint="edit it by hand")
    dump = nft_dump(text) if form is Form.NFT else xtables_dump(text)
    if dump.first is None:
        return None
    try:
        return _replaced(path, dump.without_ours())
    except OSError as error:
        raise cannot_write(path, error) from error


def _replaced(path: Path, text: str) -> Path:
    found = path.stat()
    copy = _free_name(path)
    shutil.copy2(path, copy)
    os.chown(copy, found.st_uid, found.st_gid)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return copy


def _free_name(path: Path) -> Path:
    """Return a name that no glob of an `include` takes (`*.nft`, `*.conf`, `*.rules`, `*.set`)."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for number in range(100):
        more = f"-{number}" if number else ""
        copy = path.with_name(f"{path.name}.with-sipfw-{stamp}{more}")
        if not copy.exists() and not copy.is_symlink():
            return copy
    raise BackendError(f"{path}: no free name for a copy of it")
