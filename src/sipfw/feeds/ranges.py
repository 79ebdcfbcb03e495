"""Address space as sorted spans of numbers: cutting holes, and networks from what is left.

Neighbours are not joined: single addresses stay single, and a set with few lengths of prefix is
cheaper to ask (hash:net looks once for every length, nft keeps single addresses in a hash).
"""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sipfw.policy.types import Network

# First and last address.
Span = tuple[int, int]

BITS = {4: 32, 6: 128}


def span_of(network: Network) -> Span:
    """Return the first and the last address of a network."""
    start = int(network.network_address)
    return start, start + (1 << (network.max_prefixlen - network.prefixlen)) - 1


def distinct(spans: Iterable[Span]) -> list[Span]:
    """Sort the spans of networks and drop those inside another one."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda item: (item[0], -item[1])):
        if not found or span[1] > found[-1][1]:
            found.append(span)
    return found


def touched(spans: Sequence[Span], hole: Span) -> bool:
    """Tell whether distinct spans share an address with `hole`."""
    place = bisect_right(spans, (hole[1], hole[1] + (1 << 128)))
    return place > 0 and spans[place - 1][1] >= hole[0]


def without(spans: Sequence[Span], holes: Iterable[Span]) -> list[Span]:
    """Return what of distinct spans lies in no hole: never an address more than before."""
    left = list(spans)
    for first, last in distinct(holes):
        at = max(bisect_right(left, (first, first)) - 1, 0)
        while at < len(left) and left[at][0] <= last:
            start, end = left[at]
            if end < first:
                at += 1
                continue
            parts = [(start, first - 1)] if start < first else []
            parts += [(last + 1, end)] if end > last else []
            left[at : at + 1] = parts
            at += len(parts)
    return left


def networks_of(spans: Iterable[Span], version: int) -> list[Network]:
    """Return the fewest networks that hold exactly these addresses."""
    kind = IPv4Network if version == 4 else IPv6Network
    return [kind(item) for first, last in spans for item in _aligned(first, last, BITS[version])]


def _aligned(first: int, last: int, bits: int) -> Iterator[tuple[int, int]]:
    while first <= last:
        size = (first & -first).bit_length() - 1 if first else bits
        size = min(size, (last - first + 1).bit_length() - 1)
        yield first, bits - size
        first += 1 << size
