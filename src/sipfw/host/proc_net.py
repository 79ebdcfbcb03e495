"""What /proc/net tells: the form of its addresses, and where the routes of this host lead.

What cannot be read is an empty file, and a line that cannot be read is none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/route.h: RTF_UP, RTF_REJECT.
_UP = 0x1
_REJECT = 0x200

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Route:
    network: IPv4Network | IPv6Network
    metric: int
    interface: str


def lines_of(path: Path) -> list[str]:
    """Return the lines of a small file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def from_hex(text: str) -> IPv4Address | IPv6Address:
    """Read an address; the kernel prints each 32 bits as a number of this machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def way_to(address: IPv4Address | IPv6Address, proc: Path = _PROC) -> str | None:
    """Return the interface of the route to an address; None where no single one is the best."""
    names = ways_to(address, proc)
    return next(iter(names)) if len(names) == 1 else None


def speaks_netlink(protocol: int, proc: Path = _PROC) -> bool:
    """Tell whether the kernel answers a protocol of netlink now, without having it load a module.

    It then has a socket of its own, whose port is 0 (netlink_seq_show). True where nobody knows.
    """
    rows = [line.split()[1:3] for line in lines_of(proc / "net" / "netlink")[1:]]
    return not rows or [str(protocol), "0"] in rows


def ways_to(address: IPv4Address | IPv6Address, proc: Path = _PROC) -> frozenset[str]:
    """Return the interfaces of the best routes to an address, as the main table has them."""
    routes = _routes4(proc) if address.version == 4 else _routes6(proc)
    fitting = [route for route in routes if address in route.network]
    best = min((_rank(route) for route in fitting), default=None)
    return frozenset(route.interface for route in fitting if _rank(route) == best)


def ways_out(proc: Path = _PROC, table: str = "") -> frozenset[str]:
    """Return the interfaces that lead to the Internet.

    `table` is what `ip route show table all` prints; /proc shows the main table of IPv4 only, and
    of a route over several interfaces the first one.
    """
    routes = (*_routes4(proc), *_routes6(proc))
    found = {route.interface for route in routes if _is_wide(route.network)}
    # nexthops follow their route on lines of their own.
    wide = False
    for line in table.splitlines():
        words = line.split()
        if words and not line.startswith(("\t", " ")):
            wide = _is_default(words[0])
        if wide:
            found |= {name for word, name in pairwise(words) if word == "dev"}
    # Without an address, a host has a default route that rejects, or one on loopback.
    return frozenset(found - {"lo"})


def _is_default(word: str) -> bool:
    """Tell it of the first word of a route: a kind such as `unreachable` is none."""
    if word == "default":
        return True
    try:
        return _is_wide(ip_network(word))
    except ValueError:
        return False


def _is_wide(network: IPv4Network | IPv6Network) -> bool:
    """Tell whether it is a large part of the Internet: a VPN writes halves, IPv6 has 2000::/3."""
    return network.prefixlen <= (1 if network.version == 4 else 3)


def _rank(route: _Route) -> tuple[int, int]:
    return -route.network.prefixlen, route.metric


def _routes4(proc: Path) -> Iterator[_Route]:
    """Read `iface destination gateway flags refcnt use metric mask ...` of the main table."""
    for line in lines_of(proc / "net" / "route")[1:]:
        words = line.split()
        try:
            if int(words[3], 16) & (_UP | _REJECT) == _UP:
                network = IPv4Network(f"{from_hex(words[1])}/{from_hex(words[7])}")
                yield _Route(network, int(words[6]), words[0])
        except (IndexError, ValueError, struct.error):
            continue


def _routes6(proc: Path) -> Iterator[_Route]:
    """Read `destination length source length gateway metric refcnt use flags iface`."""
    for line in lines_of(proc / "net" / "ipv6_route"):
        words = line.split()
        try:
            if int(words[8], 16) & (_UP | _REJECT) == _UP:
                network = IPv6Network((bytes.fromhex(words[0]), int(words[1], 16)))
                yield _Route(network, int(words[5], 16), words[9])
        except (IndexError, ValueError):
            continue
