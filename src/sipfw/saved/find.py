"""Finds the saved rule files of a host that hold rules of sipfw. Reads files and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sipfw.host.bounded_files import OddFileError, read_at_most
from sipfw.saved.nft_dump import NftDump, nft_dump
from sipfw.saved.places import PLACES, Form, files_of, starts_at_boot
from sipfw.saved.xtables_dump import (
    NamedSet,
    created_sets,
    mentions_ours,
    xtables_dump,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.saved.places import SavedPlace

# A dump of a firewall with 100,000 addresses has 5 MB.
LIMIT = 16 << 20
# nft(8): a file may include others, which may include others (MAX_INCLUDE_DEPTH is 16).
_DEPTH = 16
_MOST_FILES = 64
_MARK = "sipfw"


@dataclass(frozen=True, slots=True)
class Saved:
    """A file with something of ours, from line `line` on.

    `at_boot` tells whether the service that loads it is started then. `sets` are those that its
    rules name. `unloadable` tells that nft cannot read what it has printed of ours. `main` is the
    file that the service names; it may include this one.
    """

    path: Path
    form: Form
    service: str
    at_boot: bool
    line: int
    sets: tuple[NamedSet, ...] = ()
    unloadable: bool = False
    main: Path | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be looked through."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class SavedRules:
    """What of a host's saved files is about us; `made` are sets that such files make themselves."""

    saved: tuple[Saved, ...] = ()
    unread: tuple[Unread, ...] = ()
    made: frozenset[str] = frozenset()


def find(root: Path) -> SavedRules:
    """Look through all files that other programs load rules from. Raises nothing."""
    saved: list[Saved] = []
    unread: list[Unread] = []
    made: frozenset[str] = frozenset()
    for place in PLACES:
        at_boot = starts_at_boot(root, place.service)
        for path in files_of(root, place):
            for file, text in _texts(root, path, place):
                if isinstance(text, Unread):
                    unread.append(text)
                elif place.form is Form.IPSET:
                    made |= created_sets(text)
                elif (item := _saved(file, text, place, at_boot=at_boot, main=path)) is not None:
                    saved.append(item)
    return SavedRules(tuple(saved), tuple(unread), made)


def read_text(path: Path) -> str | Unread:
    """Return a file's text, or why there is none."""
    try:
        return read_at_most(path, LIMIT)
    except OddFileError as error:
        return Unread(path, str(error))
    except OSError as error:
        return Unread(path, f"{path} cannot be read: {(error.strerror or str(error)).lower()}")


def form_of(root: Path, path: Path) -> Form | None:
    """Return the language of a file that one of the services loads; None for any other file."""
    wanted = path.absolute()
    for place in PLACES:
        for main in files_of(root, place):
            if any(file.absolute() == wanted for file, _ in _texts(root, main, place)):
                return place.form
    return None


def included(root: Path, pattern: str) -> list[Path]:
    """Return the files that an `include` of nft names; without a slash in front, below /etc."""
    below = f"{root}/" if root != root.parent else "/"
    # In an image a file may name its own path there, or with that of the image.
    relative = pattern.removeprefix(below).lstrip("/") if pattern[:1] == "/" else f"etc/{pattern}"
    if "\0" in relative or ".." in relative.split("/"):
        return []
    if not any(sign in relative for sign in "*?["):
        return [root / relative]
    try:
        return sorted(islice(root.glob(relative), _MOST_FILES))
    except (OSError, ValueError, NotImplementedError):
        return []


def _texts(root: Path, path: Path, place: SavedPlace) -> Iterator[tuple[Path, str | Unread]]:
    if place.form is Form.NFT:
        yield from _with_includes(root, path, _DEPTH, set())
    else:
        yield path, read_text(path)


def _with_includes(
    root: Path, path: Path, depth: int, seen: set[Path]
) -> Iterator[tuple[Path, str | Unread]]:
    if path in seen or len(seen) >= _MOST_FILES:
        return
    seen.add(path)
    text = read_text(path)
    yield path, text
    if isinstance(text, str) and depth > 1 and "include" in text:
        for item in nft_dump(text).includes:
            for file in included(root, item.path):
                if file.exists() or file.is_symlink():
                    yield from _with_includes(root, file, depth - 1, seen)


def _saved(path: Path, text: str, place: SavedPlace, *, at_boot: bool, main: Path) -> Saved | None:
    if _MARK not in text and "SIPFW_" not in text:
        return None
    if place.form is Form.NFT:
        found: NftDump = nft_dump(text)
        if found.first is None:
            return None
        return Saved(
            path,
            place.form,
            place.service,
            at_boot,
            found.first,
            unloadable=found.compat,
            main=main,
        )
    if place.form is Form.OTHER:
        line = mentions_ours(text)
        return None if line is None else Saved(path, place.form, place.service, at_boot, line)
    dump = xtables_dump(text)
    if dump.first is None:
        return None
    return Saved(path, place.form, place.service, at_boot, dump.first, dump.sets)
