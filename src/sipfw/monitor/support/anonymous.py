"""Addresses and names that stay apart and say nothing: the same one is replaced alike everywhere.

A network of 256 IPv4 addresses, and in IPv6 one of 2^80, stays together, so that what lies in it
still does. What was replaced is kept in memory alone.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# RFC 2544 for measurements, RFC 6598, RFC 1918: nobody's own on the Internet.
_POOLS = ("198.18.0.0/15", "100.64.0.0/10", "10.0.0.0/8")
_DOCUMENTATION6 = IPv6Network("2001:db8::/32")
_WORD = re.compile(
    r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?::\d{1,3}(?:\.\d{1,3}){3})?(?![\w:]|\.\d)"
)
# An interface identifier below this is a number that somebody chose; others may hold a MAC.
_CHOSEN = 1 << 16


class Anonymous:
    """Replaces addresses, and the given names as whole words."""

    def __init__(self, peers: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        self._names = {
            **{name: f"peer-{n}" for n, name in enumerate(dict.fromkeys(peers), 1)},
            **{name: f"host-{n}.example" for n, name in enumerate(dict.fromkeys(hosts), 1)},
        }
        self._known4: dict[int, int] = {}
        self._known6: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._free4 = _networks_of_256()
        words = sorted(self._names, key=len, reverse=True)
        self._pattern = (
            re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)
            if words
            else None
        )

    def text(self, text: str) -> str:
        """Return the text with all of them replaced."""
        text = _WORD.sub(lambda found: self._address(found[0]), text)
        if self._pattern is None:
            return text
        known = {name.lower(): other for name, other in self._names.items()}
        return self._pattern.sub(lambda found: known[found[0].lower()], text)

    def _address(self, text: str) -> str:
        try:
            found = ip_address(text)
        except ValueError:
            return text
        if found.is_loopback or found.is_multicast or found.is_unspecified or found.is_link_local:
            return text
        if isinstance(found, IPv4Address):
            return text if int(found) in {0, 0xFFFFFFFF} else str(self._four(found))
        return str(self._six(found))

    def _four(self, address: IPv4Address) -> IPv4Address:
        near = int(address) >> 8
        if near not in self._known4:
            self._known4[near] = next(self._free4)
        return IPv4Address(self._known4[near] << 8 | int(address) & 0xFF)

    def _six(self, address: IPv6Address) -> IPv6Address:
        whole = int(address)
        near = self._known6.setdefault(whole >> 80, len(self._known6) + 1)
        rest = whole & ((1 << 80) - 1)
        identifier = rest & ((1 << 64) - 1)
        if identifier >= _CHOSEN:
            identifier = _CHOSEN + self._ids.setdefault(identifier, len(self._ids))
        base = int(_DOCUMENTATION6.network_address) | near << 80
        return IPv6Address(base | rest >> 64 << 64 | identifier)


def _networks_of_256() -> Iterator[int]:
    pools = (IPv4Network(pool).subnets(new_prefix=24) for pool in _POOLS)
    return (int(item.network_address) >> 8 for item in chain.from_iterable(pools))
