"""Where the copies of block lists are kept: two files of root's for each, in the state folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.lists.sets import feeds_folder
from sipfw.feeds.store import Copy, Tries, copy_text, read_copy, read_tries, tries_text
from sipfw.host.files import read_private, sweep, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.policy.feed import Feed


@dataclass(frozen=True, slots=True)
class KnownList:
    """What is on file of a list. `unreadable` tells that a file may be there, but not for us."""

    copy: Copy | None = None
    tries: Tries | None = None
    unreadable: bool = False

    @property
    def good(self) -> float | None:
        """Say when the source last stood by the copy; its own time where that is lost."""
        if self.copy is None:
            return None
        told = None if self.tries is None else self.tries.good
        return self.copy.time if told is None else told


def read_known(layout: Layout, feed: Feed) -> KnownList:
    """Return what is on file. A file that cannot be trusted, or of another source, is none."""
    folder = feeds_folder(layout)
    try:
        copy = _text(folder / f"{feed.name}.json")
        tries = _text(folder / f"{feed.name}.tries.json")
    except PermissionError:
        return KnownList(unreadable=True)
    return KnownList(
        None if copy is None else read_copy(copy, feed),
        None if tries is None else read_tries(tries, feed),
    )


def write_copy(layout: Layout, feed: Feed, copy: Copy) -> None:
    """Keep a copy. Raises BackendError on a full disk."""
    write_atomically(feeds_folder(layout) / f"{feed.name}.json", copy_text(feed, copy))


def write_tries(layout: Layout, feed: Feed, tries: Tries) -> None:
    """Keep the last try. Raises BackendError on a full disk."""
    write_atomically(feeds_folder(layout) / f"{feed.name}.tries.json", tries_text(feed, tries))


def forget_others(layout: Layout, feeds: Iterable[Feed]) -> None:
    """Delete the copies of lists that the policy in force has no more."""
    names = {f"{feed.name}{ending}" for feed in feeds for ending in (".json", ".tries.json")}
    folder = feeds_folder(layout)
    sweep(folder)
    for path in folder.glob("*.json"):
        if path.name not in names:
            with suppress(OSError):
                path.unlink()


def _text(path: Path) -> str | None:
    try:
        return read_private(path)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
