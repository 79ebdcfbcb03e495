"""Loads what a service could not load at boot because sipfw's rules are in its file.

A file that `nft list ruleset` has written holds what nft cannot read, and its service then loads
nothing (see `sipfw.saved.nft_dump`). The file stays as it is; what of it is not ours is
loaded from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.privilege import require_root
from sipfw.host.runner import SubprocessRunner
from sipfw.saved.find import LIMIT, Unread, find, included, read_text
from sipfw.saved.nft_dump import nft_dump
from sipfw.saved.places import Form

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.host.runner import Runner

_TIMEOUT = 60.0
_DEPTH = 16
_NOISE = re.compile(r"^libxtables: unhandled NFPROTO|^# Warning: table .* is managed by ")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of one file; `fault` says why it could not be loaded."""

    path: Path
    tables: tuple[str, ...] = ()
    fault: str = ""


def load_left_out(layout: Layout, runner: Runner | None = None) -> tuple[Loaded, ...]:
    """Load the files that their services start at boot and could not load for our rules alone.

    Only where none of a file's tables is there: a file that was loaded is never loaded twice.
    Raises BackendError where nft does not run.
    """
    require_root()
    run = runner or SubprocessRunner()
    mains = dict.fromkeys(
        item.main or item.path
        for item in find(layout.root).saved
        if item.form is Form.NFT and item.unloadable and item.at_boot
    )
    done = (_load(layout.root, path, run) for path in mains)
    return tuple(item for item in done if item is not None)


def loads(path: Path, runner: Runner) -> str | None:
    """Return why nft would refuse a file, None where it would load it; changes nothing."""
    done = runner.run(["nft", "-c", "-f", str(path)], timeout=_TIMEOUT)
    return None if done.returncode == 0 else first_fault(done.stderr)


def first_fault(text: str) -> str:
    """Return the first line that says something."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not _NOISE.match(line)), "no reason given")


def _load(root: Path, path: Path, runner: Runner) -> Loaded | None:
    try:
        text, tables = _flattened(root, path, _DEPTH)
    except _UnreadableError as error:
        return Loaded(path, fault=str(error))
    if not tables or _there(runner) & set(tables):
        return None
    if loads(path, runner) is None:
        return None
    done = runner.run(["nft", "-f", "-"], stdin=text, timeout=_TIMEOUT)
    if done.returncode != 0:
        return Loaded(path, fault=f"also without sipfw's rules: {first_fault(done.stderr)}")
    return Loaded(path, tuple(tables))


def _there(runner: Runner) -> set[str]:
    done = runner.run(["nft", "list", "tables"], timeout=_TIMEOUT)
    if done.returncode != 0:
        raise BackendError(f"nft list tables: {first_fault(done.stderr)}")
    return {line.removeprefix("table ").strip() for line in done.stdout.splitlines()}


class _UnreadableError(Exception):
    """A file, or one that it includes, cannot be read."""


def _flattened(root: Path, path: Path, depth: int) -> tuple[str, dict[str, None]]:
    """Return a file's text without what is ours, with the files that it includes in their places.

    The tables that it makes come with it. It flushes nothing: what stands in the kernel by now,
    others have loaded.
    """
    text = read_text(path)
    if isinstance(text, Unread):
        raise _UnreadableError(text.reason)
    if depth == 0:
        raise _UnreadableError(f"{path}: files include each other too deeply")
    tables: dict[str, None] = {}
    dump = nft_dump(text)
    parts, at = [], 0
    for item in dump.includes:
        parts.append(text[at : item.start])
        for file in included(root, item.path):
            inner, more = _flattened(root, file, depth - 1)
            parts.append(f"\n{inner}\n")
            tables |= more
        at = item.end
    whole = "".join([*parts, text[at:]])
    if len(whole) > LIMIT:
        raise _UnreadableError(f"{path} with its files is larger than {LIMIT:,} bytes")
    rest = nft_dump(whole) if parts else dump
    return rest.without_ours(flushes=False), tables | dict.fromkeys(rest.tables)
