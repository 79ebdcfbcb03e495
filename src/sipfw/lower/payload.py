"""Questions about bytes at fixed places of a packet, whichever match of x_tables asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from sipfw.lower.xtables import XMatch
    from sipfw.ruleset.match import L4Proto

IP_HEADER = {Family.IP: 20, Family.IP6: 40}
UDP_HEADER = 8
TCP_HEADER_MIN = 20
TCP_HEADER_MAX = 60


class PayloadForm(Protocol):
    """One match of x_tables that compares bytes.

    Options of IP are left out of account: who asks drops them before (`MovedPayload`). A packet
    that ends before the place has not the bytes, and a negated question about it is answered yes.
    """

    @property
    def extension(self) -> str:
        """What `-m` calls it."""
        ...

    @property
    def longest(self) -> int:
        """How many bytes one match compares, at least four."""
        ...

    def starts_with(
        self, proto: L4Proto, family: Family, pattern: bytes, *, negate: bool
    ) -> XMatch:
        """Ask whether the payload starts with four bytes or more."""
        ...

    def first_word_is_one_of(
        self, proto: L4Proto, family: Family, words: tuple[bytes, ...]
    ) -> list[XMatch]:
        """Ask whether the first four bytes are one of these: matches of which one has to hold."""
        ...

    def has_data(self, family: Family) -> XMatch:
        """Ask whether anything follows the TCP header."""
        ...

    def is_moved(self, family: Family) -> XMatch:
        """Ask whether options or extension headers move the transport header."""
        ...
