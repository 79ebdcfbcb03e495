"""Where a list may be fetched: a redirect never leads into this host or the networks behind it.

The addresses that the resolver gave are judged, and one of those is connected to: a name that
resolves otherwise the next moment, and a host written as one number, gain nothing.
"""

from __future__ import annotations

import socket
import time
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from sipfw.feeds.errors import FeedError


class AddressScope(StrEnum):
    """Whose network an address is in."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    PRIVATE = "private"
    NOBODYS = "nobody's"


# RFC 6890 and its registries; documentation networks count as public, they harm nobody.
_INNER = {
    AddressScope.LOOPBACK: ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"),
    # The metadata services of clouds are at 169.254.169.254 and fd00:ec2::254.
    AddressScope.LINK_LOCAL: ("169.254.0.0/16", "fe80::/10"),
    AddressScope.PRIVATE: (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "fc00::/7",
        "fec0::/10",
    ),
    AddressScope.NOBODYS: ("224.0.0.0/3", "ff00::/8"),
}
_PLACES = [
    (IPv6Network(text) if ":" in text else IPv4Network(text), place)
    for place, texts in _INNER.items()
    for text in texts
]
# Prefixes with an IPv4 address behind them, and the bit at which it ends: IPv4-mapped and
# -compatible (RFC 4291), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 128),
    (IPv6Network("::/96"), 128),
    (IPv6Network("64:ff9b::/96"), 128),
    (IPv6Network("64:ff9b:1::/48"), 128),
    (IPv6Network("2002::/16"), 48),
)
_TEREDO = IPv6Network("2001::/32")


def place_of(address: IPv4Address | IPv6Address) -> AddressScope:
    """Judge an address by the innermost one that it stands for."""
    for network, place in _PLACES:
        if address.version == network.version and address in network:
            return place
    if isinstance(address, IPv6Address):
        for carrier, end in _CARRIERS:
            if address in carrier:
                return place_of(IPv4Address(int(address) >> (128 - end) & 0xFFFFFFFF))
        if address in _TEREDO:
            # RFC 4380, 4: the client's address, every bit of it turned over.
            return place_of(IPv4Address(~int(address) & 0xFFFFFFFF))
    return AddressScope.PUBLIC


def connect(
    host: str, port: int, end: float, home: AddressScope | None
) -> tuple[socket.socket, AddressScope]:
    """Open a connection before `end` (monotonic clock) and say where it leads.

    `home` is where the feed itself is, None for the feed itself. Raises FeedError where the host
    is somewhere inside and the feed is not, and OSError.
    """
    trouble: OSError | None = None
    refused = False
    for family, kind, protocol, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        place = place_of(ip_address(str(where[0]).partition("%")[0]))
        if not _may_go(place, home, host):
            refused = True
            continue
        try:
            return _opened(family, kind, protocol, where, end), place
        except OSError as error:
            trouble = error
    if trouble is None and refused:
        raise FeedError(
            "leads to a loopback, link-local or private address, where sipfw does not follow a "
            "public list"
        )
    raise trouble or OSError("the host has no address")


def _may_go(place: AddressScope, home: AddressScope | None, host: str) -> bool:
    if place is AddressScope.NOBODYS:
        return False
    if home is None:
        # A name that suddenly stands for a metadata service is not what the policy means.
        return place is not AddressScope.LINK_LOCAL or _is_literal(host)
    return place in {AddressScope.PUBLIC, home}


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _opened(family: int, kind: int, protocol: int, where: Any, end: float) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.settimeout(max(end - time.monotonic(), 0.001))
        opened.connect(where)
    except BaseException:
        opened.close()
        raise
    return opened
