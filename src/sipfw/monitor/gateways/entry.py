"""What one line of somebody else's configuration says: a name, and where packets may come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network

from sipfw.policy.peer_coverage import too_wide
from sipfw.policy.types import Hostname, Network, parse_network, parse_peer_address

_SCHEME = re.compile(r"sips?:", re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}\Z")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a file, as it is written; `line` counts from 1."""

    line: int
    name: str
    places: tuple[str, ...]


def read_place(text: str) -> Network | Hostname | None:
    """Read an address, a network, a host name or a SIP URI (RFC 3261, 19.1); None for all else.

    What no carrier sends from is none: this host itself, groups, a part of the Internet. A user
    and his password are left out.
    """
    text = text.strip().strip("\"'<>")
    if not text or len(text) > _LONGEST:
        return None
    text = _SCHEME.sub("", re.split(r"[;?>]", text, maxsplit=1)[0], count=1).rpartition("@")[2]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    for written in (text, _PORT.sub("", text)):
        place = _read(written)
        if place is not None:
            return place if isinstance(place, Hostname) or _outside(place) else None
    return None


def _read(text: str) -> Network | Hostname | None:
    try:
        return parse_peer_address(text)
    except ValueError:
        pass
    # 192.0.2.1/24 and 192.0.2.0/255.255.255.0, as Asterisk and iptables are told.
    try:
        return parse_network(str(ip_network(text, strict=False)))
    except ValueError:
        return None


def _outside(network: Network) -> bool:
    first = network.network_address
    return not (
        too_wide(network)
        or first.is_loopback
        or first.is_unspecified
        or first.is_multicast
        or first.is_link_local
    )
