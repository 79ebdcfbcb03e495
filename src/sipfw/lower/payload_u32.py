"""Bytes at fixed places, asked with `-m u32`: four bytes at a time, and readable by people.

A string match with a window searches the whole packet first and looks at the window then: a
microsecond for each miss, against a few nanoseconds here (docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower.payload import IP_HEADER, UDP_HEADER
from sipfw.lower.xtables import Family, XMatch, XParam
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Callable

# XT_U32_MAXSIZE: at most ten comparisons in one match, and ten values in one comparison.
_VALUES = 10


class U32Payload:
    """What xt_u32 can say."""

    extension = "u32"
    longest = 4 * _VALUES

    def starts_with(
        self, proto: L4Proto, family: Family, pattern: bytes, *, negate: bool
    ) -> XMatch:
        """Compare four bytes at a time; a tail of fewer overlaps the word before it."""
        start = _start(proto, family)
        places = [*range(0, len(pattern) - 3, 4)]
        if len(pattern) % 4:
            places.append(len(pattern) - 4)
        return _u32(
            "&&".join(f"{start(at)}=0x{pattern[at : at + 4].hex()}" for at in places), negate=negate
        )

    def first_word_is_one_of(
        self, proto: L4Proto, family: Family, words: tuple[bytes, ...]
    ) -> list[XMatch]:
        """Compare the first word with lists of values, as many as one match takes."""
        start = _start(proto, family)(0)
        groups = (words[at : at + _VALUES] for at in range(0, len(words), _VALUES))
        return [
            _u32(f"{start}={','.join(f'0x{word.hex()}' for word in group)}") for group in groups
        ]

    def has_data(self, family: Family) -> XMatch:
        """Read a word whose last byte is the first one behind the header."""
        return _u32(f"{_tcp(family, -3)}=0x0:0xffffffff")

    def is_moved(self, family: Family) -> XMatch:
        """Look at the length of the IPv4 header, and at what IPv6 says comes next."""
        plain = "0>>24&0xf=5" if family is Family.IP else "4>>8&0xff=6,17"
        return _u32(plain, negate=True)


def _u32(test: str, *, negate: bool = False) -> XMatch:
    return XMatch("u32", (XParam("u32", (test,), negate=negate),))


def _start(proto: L4Proto, family: Family) -> Callable[[int], str]:
    """Return how u32 names a place behind the transport header.

    A TCP header says its own length, in words of four bytes, in the first four bits of its byte 12.
    """
    if proto is L4Proto.UDP:
        return lambda at: str(IP_HEADER[family] + UDP_HEADER + at)
    return lambda at: _tcp(family, at)


def _tcp(family: Family, at: int) -> str:
    start = IP_HEADER[family]
    return f"{start + 12}>>26&0x3c@{start + at}"
