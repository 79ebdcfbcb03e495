"""Who is banned or trusted by hand, since when, until when, why and by whom: two files of root's.

The kernel holds the addresses; the files hold what it cannot, and bring the addresses back after
a restart. Times are the host's clock, because they must outlive a boot.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from sipfw.compiler import names
from sipfw.compiler.manual import ByHand
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.host.files import cannot_write, read_private, sync_folder, write_atomically
from sipfw.host.privilege import WHO
from sipfw.plain_data import from_plain, to_plain
from sipfw.ruleset.addresses import IpAddress  # noqa: TC001 - an annotation that is read
from sipfw.ruleset.source import key_address
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.ruleset.match import PrefixLengths

FORMAT = 1
LONGEST_REASON = 80
# In the year 4147: later ones cannot be shown, and no clock is there.
_LAST_MOMENT = 1 << 36


class Book(Enum):
    """One of the two files; its value is the name of the set that holds the addresses."""

    BANS = names.SET_BLOCKED
    TRUSTS = names.SET_GUESTS

    def path(self, layout: Layout) -> Path:
        """Return where it is kept."""
        return layout.state / ("bans.json" if self is Book.BANS else "trust.json")


@dataclass(frozen=True, slots=True)
class ManualEntry:
    """One address with its reason; times in seconds since 1970."""

    address: IpAddress
    since: int
    until: int
    reason: str
    who: str

    def left(self, now: float) -> int:
        """Return the seconds that are left: never more than at the start, if the clock is back."""
        return min(self.until - int(now), self.until - self.since)


@dataclass(frozen=True, slots=True)
class ManualList:
    """What one file says now. `faults` are what could not be read of it."""

    entries: Mapping[IpAddress, ManualEntry]
    faults: tuple[Diagnostic, ...] = ()


def read_page(layout: Layout, book: Book, *, now: float | None = None) -> ManualList:
    """Return what has not expired. A damaged file is a warning, and what can be read of it counts.

    Raises nothing: a firewall with forgotten reasons is better than none.
    """
    return read_page_of(book.path(layout), now=now)


def read_page_of(path: Path, *, now: float | None = None) -> ManualList:
    """Return the same of a file that may stand anywhere."""
    moment = time.time() if now is None else now
    try:
        items = _items(json.loads(read_private(path)))
    except FileNotFoundError:
        return ManualList({})
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return ManualList(
            {}, (_fault(path, f"cannot be read: {reason}; reasons and ends are lost"),)
        )
    read = [_kept(item) for item in items]
    found = {item.address: item for item in read if item is not None and item.left(moment) > 0}
    damaged = read.count(None)
    if not damaged:
        return ManualList(found)
    what = f"{pluralize(damaged, 'entry', 'entries')} {'is' if damaged == 1 else 'are'}"
    return ManualList(found, (_fault(path, f"{what} damaged and left out"),))


def by_source(page: ManualList, prefix: PrefixLengths) -> ManualList:
    """Return the page with one entry for each source: the one that lasts longest.

    The file may be older than `limits.ipv6_prefix`, or than its present value.
    """
    found: dict[IpAddress, ManualEntry] = {}
    for item in page.entries.values():
        source = key_address(item.address, prefix)
        if source not in found or item.until > found[source].until:
            found[source] = replace(item, address=source)
    return replace(page, entries=found)


def write_page(layout: Layout, book: Book, entries: Mapping[IpAddress, ManualEntry]) -> None:
    """Replace the file; without an entry there is none. Raises BackendError."""
    path = book.path(layout)
    if not entries:
        try:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error
        return
    write_page_to(path, entries)


def write_page_to(path: Path, entries: Mapping[IpAddress, ManualEntry]) -> None:
    """Write the entries to a file that may stand anywhere. Raises BackendError."""
    items = [to_plain(item) for item in entries.values()]
    text = json.dumps({"format": FORMAT, "entries": items}, indent=1)
    write_atomically(path, text + "\n")


def forget_by_hand(layout: Layout) -> None:
    """Forget all: without a firewall nobody is banned, and no trust may come back unasked."""
    for book in Book:
        if book.path(layout).exists():
            write_page(layout, book, {})
    try:
        layout.trusted_names.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(layout.trusted_names, error) from error


def by_hand(layout: Layout) -> ByHand:
    """Tell which rules the next firewall needs. A file that cannot be read may hold somebody."""
    pages = {book: read_page(layout, book) for book in Book}
    needed = {book: bool(page.entries or page.faults) for book, page in pages.items()}
    return ByHand(blocked=needed[Book.BANS], guests=needed[Book.TRUSTS])


def checked_reason(text: str) -> str:
    """Return a reason without blanks around it. Raises ValueError for what may not be shown."""
    reason = text.strip(" ")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        from sipfw.policy.quantities import shown  # noqa: PLC0415 - pydantic comes with it

        raise ValueError(
            f"{shown(text)} is not a reason; write at most {LONGEST_REASON} printable characters"
        )
    return reason


def _items(data: Any) -> list[Any]:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("it is not of this version")
    items = data.get("entries")
    if not isinstance(items, list):
        raise ValueError("it has no list of entries")
    return items


def _kept(item: object) -> ManualEntry | None:
    """Return an entry; None for one that this module did not write."""
    # Only a host with such an entry has to pay for pydantic.
    from sipfw.deploy.names.resolve import may_be_a_peer  # noqa: PLC0415 - see above
    from sipfw.policy.quantities import MAX_DURATION  # noqa: PLC0415 - see above

    try:
        entry = from_plain(item, ManualEntry)
        entry = replace(entry, reason=checked_reason(entry.reason))
    except ValueError:
        return None
    sound = (
        may_be_a_peer(entry.address)
        and 0 < entry.until - entry.since <= MAX_DURATION
        and 0 <= entry.since < _LAST_MOMENT
        and WHO.fullmatch(entry.who) is not None
    )
    return entry if sound else None


def _fault(path: Path, message: str) -> Diagnostic:
    return Diagnostic(f"{path}: {message}", severity=Severity.WARNING)
