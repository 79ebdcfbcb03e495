"""Collapsing networks agrees with the standard library."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from hypothesis import given
from hypothesis import strategies as st

from sipfw.compiler.collapsed import collapsed


def _fours(start: int, length: int) -> IPv4Network:
    return IPv4Network((0xC0000200 | (start >> (32 - length) << (32 - length)), length))


def _sixes(start: int, length: int) -> IPv6Network:
    first = (0x20010DB8 << 96) | (start >> (128 - length) << (128 - length))
    return IPv6Network((first, length))


FOURS = st.builds(_fours, st.integers(0, 255), st.integers(24, 32))
SIXES = st.builds(_sixes, st.integers(0, 255), st.integers(120, 128))


@given(st.lists(FOURS), st.lists(SIXES))
def test_as_the_standard_library(fours: list[IPv4Network], sixes: list[IPv6Network]) -> None:
    expected = (*collapse_addresses(fours), *collapse_addresses(sixes))
    assert collapsed([*fours, *sixes]) == expected
    assert collapsed([*sixes, *reversed(fours)]) == expected


def test_the_whole_address_space() -> None:
    whole = IPv6Network("::/0")
    halves = [*whole.subnets(), IPv6Network("2001:db8::/32")]
    assert collapsed([*halves]) == (whole,)
