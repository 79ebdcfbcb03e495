"""Networks without those that lie inside others."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.policy.types import Network


def collapsed(networks: list[Network]) -> tuple[Network, ...]:
    """Sort networks, drop those inside another one and join halves into their whole.

    As ipaddress.collapse_addresses, which takes seconds for a hundred thousand addresses.
    """
    four = [n for n in networks if n.version == 4]
    six = [n for n in networks if n.version == 6]
    return (*_collapsed(four, 32), *_collapsed(six, 128))


def _collapsed(networks: Sequence[Network], bits: int) -> list[Network]:
    known = {(int(n.network_address), n.prefixlen): n for n in networks}
    kept: list[tuple[int, int]] = []
    for start, length in sorted(known):
        if kept and kept[-1][1] <= length and _same_prefix(kept[-1], start, bits):
            continue
        kept.append((start, length))
        while len(kept) > 1 and _are_halves(kept[-2], kept[-1], bits):
            first, halved = kept[-2]
            kept[-2:] = [(first, halved - 1)]
    kind = IPv4Network if bits == 32 else IPv6Network
    return [known.get(item) or kind(item) for item in kept]


def _same_prefix(network: tuple[int, int], address: int, bits: int) -> bool:
    start, length = network
    return start >> (bits - length) == address >> (bits - length)


def _are_halves(one: tuple[int, int], other: tuple[int, int], bits: int) -> bool:
    length = one[1]
    if length != other[1] or length == 0:
        return False
    half = 1 << (bits - length)
    return one[0] ^ other[0] == half and not one[0] & half
