"""This host's own addresses, from /proc: no program is needed and none can lie."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAF = re.compile(r"\s*\|-- ([0-9.]{7,15})")
_LOCAL = re.compile(r"\s*/32 host LOCAL")


def own_addresses(proc: Path = Path("/proc")) -> list[IPv4Address | IPv6Address]:
    """Return the addresses of all interfaces; what cannot be read has none."""
    return [*_four(proc / "net" / "fib_trie"), *_six(proc / "net" / "if_inet6")]


def _four(path: Path) -> list[IPv4Address]:
    """Read the local routes: `|-- ADDRESS` and below it `/32 host LOCAL`, once in every table."""
    found: dict[IPv4Address, None] = {}
    leaf = None
    for line in _lines(path):
        if (match := _LEAF.match(line)) is not None:
            leaf = match[1]
        elif leaf is not None and _LOCAL.match(line):
            found[IPv4Address(leaf)] = None
    return list(found)


def _six(path: Path) -> Iterator[IPv6Address]:
    for line in _lines(path):
        word = line.partition(" ")[0]
        if re.fullmatch(r"[0-9a-f]{32}", word):
            yield IPv6Address(bytes.fromhex(word))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
