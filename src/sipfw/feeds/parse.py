"""A block list's bytes to networks. The bytes are hostile; what is no address is no rule either.

Only numbers leave this module: no text of a list reaches a kernel tool. A host part under a prefix
is cut off (`203.0.113.9/24` is 203.0.113.0/24, as ipset reads it). Nobody's and private networks
are left out, and cut out of wider ones; documentation networks are not, they harm nobody.
"""

from __future__ import annotations

import csv
import io
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.feeds.coverage import SPECIAL_NETWORKS, require_coverage
from sipfw.feeds.errors import FeedError
from sipfw.feeds.ranges import BITS, Span, distinct, networks_of, span_of, without
from sipfw.policy.feed import FeedFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.policy.feed import Feed
    from sipfw.policy.types import Network

# A million entries and as many comments fit; blank lines without end do not.
_MOST_LINES = 4_000_000
_LONGEST_LINE = {FeedFormat.LIST: 512, FeedFormat.CSV: 4096, FeedFormat.JSON: 128}

_KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}
_PREFIX = re.compile(rb"[0-9]{1,3}")
_COMMENT = re.compile(rb"[#;].*", re.DOTALL)
_JSON_START = re.compile(rb"\s*\[")
_JSON_TEXT = re.compile(rb'\s*"([^"\\\x00-\x1f]*)"\s*([,\]])')
_JSON_EMPTY = re.compile(rb"\s*\[\s*\]\s*")
_BOM = b"\xef\xbb\xbf"

_SPECIAL_SPANS = {
    4: distinct(span_of(network) for network in SPECIAL_NETWORKS),
    # All but 2000::/3, from which every global address is given (RFC 4291, 2.4).
    6: [(0, (1 << 125) - 1), (2 << 125, (1 << 128) - 1)],
}
_SPECIAL_STARTS = {first >> 24 for first, _ in _SPECIAL_SPANS[4]} | set(range(224, 256))

UNREADABLE = "no address"
TOO_WIDE = "wider than min_prefix"
SPECIAL = "private or nobody's"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not taken, how often, and the line or entry where it was first.

    The entry itself is not kept: a list, or a file that was taken for one, may hold anything.
    """

    reason: str
    count: int
    first: int

    def __str__(self) -> str:
        return f"{self.count:,} {self.reason} (first: {self.first})"


@dataclass(frozen=True, slots=True)
class Parsed:
    """The networks of a list, sorted, none inside another, and what was left out."""

    networks: tuple[Network, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(slots=True)
class _Tally:
    """What a list held so far."""

    entries: dict[int, set[Span]] = field(default_factory=lambda: {4: set(), 6: set()})
    readable: int = 0
    left_out: dict[str, tuple[int, int]] = field(default_factory=dict)

    def leave_out(self, reason: str, number: int) -> None:
        count, first = self.left_out.get(reason, (0, number))
        self.left_out[reason] = count + 1, first

    @property
    def unreadable(self) -> int:
        return self.left_out.get(UNREADABLE, (0, 0))[0]


def parse(data: bytes, feed: Feed) -> Parsed:
    """Read a list as the policy describes it.

    Raises FeedError for what is no list, too long, or covers too much of the Internet.
    """
    tally = _Tally()
    four, six = tally.entries[4], tally.entries[6]
    for number, text in _TEXTS[feed.format](data.removeprefix(_BOM), feed.column):
        _note(tally, feed, number, text)
        if len(four) + len(six) > feed.max_entries:
            raise FeedError(
                f"holds more than {feed.max_entries:,} entries; raise max_entries, or use a "
                "shorter list"
            )
    if tally.unreadable > tally.readable:
        total = tally.unreadable + tally.readable
        raise FeedError(
            f"is not a list of addresses: {tally.unreadable:,} of {total:,} entries hold none; "
            "check source and format"
        )
    networks: list[Network] = []
    for version, spans in tally.entries.items():
        left = without(distinct(spans), _SPECIAL_SPANS[version])
        networks += networks_of(left, version)
    require_coverage(networks, feed)
    left_out = tuple(LeftOut(why, *seen) for why, seen in tally.left_out.items())
    return Parsed(tuple(networks), left_out)


def _note(tally: _Tally, feed: Feed, number: int, text: bytes | None) -> None:
    found = None if text is None else _network(text)
    if found is None:
        tally.leave_out(UNREADABLE, number)
        return
    version, start, length = found
    tally.readable += 1
    if length < (feed.min_prefix.ip if version == 4 else feed.min_prefix.ip6):
        tally.leave_out(TOO_WIDE, number)
        return
    span = start, start + (1 << (BITS[version] - length)) - 1
    if _is_special(version, span):
        tally.leave_out(SPECIAL, number)
    else:
        tally.entries[version].add(span)


def _is_special(version: int, span: Span) -> bool:
    if version == 4 and span[0] >> 24 not in _SPECIAL_STARTS:
        return False
    return any(low <= span[0] and span[1] <= high for low, high in _SPECIAL_SPANS[version])


def _network(text: bytes) -> tuple[int, int, int] | None:
    """Return version, first address and prefix length; None for anything but an address."""
    address, slash, prefix = text.partition(b"/")
    version = 6 if b":" in address else 4
    try:
        # Takes no leading zeros, no short forms, no scope.
        packed = socket.inet_pton(_KINDS[version], address.decode("ascii"))
    except (OSError, ValueError):
        return None
    bits = BITS[version]
    if not slash:
        return version, int.from_bytes(packed), bits
    if not _PREFIX.fullmatch(prefix) or int(prefix) > bits:
        return None
    return version, _masked(int.from_bytes(packed), int(prefix), bits), int(prefix)


def _masked(address: int, length: int, bits: int) -> int:
    return address >> (bits - length) << (bits - length)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(io.BytesIO(data), start=1):
        if number > _MOST_LINES:
            raise FeedError(f"has more than {_MOST_LINES:,} lines")
        yield number, line


def _list_texts(data: bytes, column: int) -> Iterator[tuple[int, bytes | None]]:
    del column
    for number, line in _lines(data):
        if len(line) > _LONGEST_LINE[FeedFormat.LIST]:
            yield number, None
        elif text := _COMMENT.sub(b"", line).strip():
            yield number, text


def _csv_texts(data: bytes, column: int) -> Iterator[tuple[int, bytes | None]]:
    for number, line in _lines(data):
        if not line.strip() or line.startswith((b"#", b";")):
            continue
        yield number, _cell(line, column)


def _cell(line: bytes, column: int) -> bytes | None:
    if len(line) > _LONGEST_LINE[FeedFormat.CSV]:
        return None
    try:
        # Line by line, so that an open quote swallows no others.
        cells = next(csv.reader([line.decode("ascii")]), [])
        return cells[column - 1].strip().encode("ascii")
    except (UnicodeDecodeError, csv.Error, IndexError):
        return None


def _json_texts(data: bytes, column: int) -> Iterator[tuple[int, bytes | None]]:
    """Read an array of texts without a tree: nesting and numbers of objects cost memory."""
    del column
    start = _JSON_START.match(data)
    if start is None:
        raise FeedError("is no JSON array")
    if _JSON_EMPTY.fullmatch(data):
        return
    at, number, end = start.end(), 0, b","
    while end == b",":
        found = _JSON_TEXT.match(data, at)
        if found is None:
            raise FeedError(f"is no JSON array of plain texts: see entry {number + 1}")
        at, number, end = found.end(), number + 1, found[2]
        yield number, found[1] if len(found[1]) <= _LONGEST_LINE[FeedFormat.JSON] else None
    if data[at:].strip():
        raise FeedError("is no JSON array: more follows its end")


_TEXTS = {
    FeedFormat.LIST: _list_texts,
    FeedFormat.CSV: _csv_texts,
    FeedFormat.JSON: _json_texts,
}
