"""Which ports are SIP's, in the spellings of iptables, nft and fail2ban."""

from __future__ import annotations

import re

from sipfw.ruleset.match import L4Proto
from sipfw.ruleset.source import Door

# What the shipped switches listen on for signalling, TLS included.
_SIP = frozenset({5060, 5061, 5080, 5081, 5160, 5161})
_NAMES = {"sip": 5060, "sips": 5061, "sip-tls": 5061}
_RANGE = re.compile(r"(\d{1,5})(?:[:-](\d{1,5}))?")


def sip_ports(text: str) -> set[int]:
    """Return the SIP ports in a list such as `5060,5061`, `5000:5100` or `{ 5060, 5061-5069 }`."""
    found: set[int] = set()
    for part in re.split(r"[,{}\s]+", text.strip()):
        if part in _NAMES:
            found.add(_NAMES[part])
        elif match := _RANGE.fullmatch(part):
            first, last = int(match[1]), int(match[2] or match[1])
            found |= {port for port in _SIP if first <= port <= last}
    return found


def shipped_doors() -> tuple[Door, ...]:
    """Return what is SIP's where no apply says it."""
    return tuple(Door(proto, port) for proto in L4Proto for port in sorted(_SIP))


def listed(ports: set[int]) -> str:
    """Return the ports for a sentence."""
    return ", ".join(str(port) for port in sorted(ports))
