"""Addresses that a spoofer writes into his datagrams; one function for each kind of flood."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from random import Random

    from lab import Family

# Returns the next source as the IP header holds it.
Source: TypeAlias = Callable[[], bytes]

# First octets without a network that the kernel refuses as a source, that is private
# (RFC 1918, 6598), for tests or for documentation; phones and carriers live in the latter.
_REFUSED = {10, 100, 127, 169, 172, 192, 198, 203}
_OCTETS = bytes(octet for octet in range(1, 224) if octet not in _REFUSED)
# RFC 2544 keeps it for such tests; documentation networks hold no 256 networks of /24.
_NETWORKS4 = socket.inet_aton("198.18.0.0")[:2]
_NETWORKS6 = socket.inet_pton(socket.AF_INET6, "2001:db8:4000::")[:5]
# What is assigned begins with the bits 001 (RFC 4291, 2.4); what is for documentation, with 0x20.
_GLOBAL6 = bytes(first for first in range(0x24, 0x40))


def source(kind: str, family: Family, rng: Random) -> Source:
    """Return a maker of sources: `random` ones, or those of 256 `networks` (/24 or /48)."""
    makers: dict[tuple[str, str], Source] = {
        ("random", "ip"): lambda: bytes((rng.choice(_OCTETS),)) + rng.randbytes(3),
        ("random", "ip6"): lambda: bytes((rng.choice(_GLOBAL6),)) + rng.randbytes(15),
        ("networks", "ip"): lambda: _NETWORKS4 + rng.randbytes(2),
        ("networks", "ip6"): lambda: _NETWORKS6 + rng.randbytes(11),
    }
    return makers[kind, family]
