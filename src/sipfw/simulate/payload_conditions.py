"""Matches that ask about the bytes of a packet, or about where they stand."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import L4Proto
from sipfw.ruleset.rule import Family
from sipfw.simulate.match_result import MatchResult, nobody_knows, of_protocol, shown

if TYPE_CHECKING:
    from sipfw.ruleset.match import PayloadAt, PayloadContains, ShorterThan, StartsWithOneOf
    from sipfw.simulate.packet import Packet

# linux/ctype.h: the kernel's toupper() knows Latin-1, not only ASCII.
_FOLD = bytes(
    code - 32 if 0x61 <= code <= 0x7A or (0xE0 <= code <= 0xFE and code != 0xF7) else code
    for code in range(256)
)


def shorter(match: ShorterThan, packet: Packet) -> MatchResult:
    """Answer whether the payload of a datagram is shorter than so many bytes."""
    if packet.protocol is not IpProto.UDP:
        return MatchResult(holds=False, why=f"is {packet.protocol}, not udp")
    if packet.payload is None:
        return nobody_knows("the length", f"it has fewer than {match.payload_bytes} bytes")
    size = len(packet.payload)
    holds = size < match.payload_bytes
    than = "fewer than" if holds else "not fewer than"
    return MatchResult(holds, f"has {size} bytes, {than} {match.payload_bytes}")


def payload_at(match: PayloadAt, packet: Packet) -> MatchResult:
    """Answer whether the payload starts with a text, or does not."""
    proto = of_protocol(match.proto, packet)
    if not proto.holds:
        return proto
    text = shown(match.pattern)
    if packet.payload is None:
        why = f"the payload is not known, taken as not starting with {text}"
        return MatchResult(match.negate, why, unless=f"it starts with {text}")
    starts = packet.payload.startswith(match.pattern)
    return MatchResult(
        starts != match.negate, f"{'starts' if starts else 'does not start'} with {text}"
    )


def has_payload(packet: Packet) -> MatchResult:
    """Answer whether a segment carries data."""
    proto = of_protocol(L4Proto.TCP, packet)
    if not proto.holds:
        return proto
    if packet.payload is None:
        return MatchResult(holds=True, why="carries data")
    return MatchResult(
        bool(packet.payload), "carries data" if packet.payload else "carries no data"
    )


def moved(packet: Packet) -> MatchResult:
    """Answer whether the transport header stands elsewhere than usual."""
    kind = "IP options" if packet.family is Family.IP else "extension headers"
    return MatchResult(packet.moved, f"has {kind}" if packet.moved else f"has no {kind}")


def starts_with_one_of(match: StartsWithOneOf, packet: Packet) -> MatchResult:
    """Answer whether the payload starts with one of several words."""
    proto = of_protocol(match.proto, packet)
    if not proto.holds:
        return proto
    words = " or ".join(shown(word) for word in match.words)
    if packet.payload is None:
        return nobody_knows("the payload", f"it starts with {words}")
    found = next((word for word in match.words if packet.payload.startswith(word)), None)
    if found is None:
        return MatchResult(holds=False, why=f"does not start with {words}")
    return MatchResult(holds=True, why=f"starts with {shown(found)}")


def payload_contains(match: PayloadContains, packet: Packet) -> MatchResult:
    """Answer whether the payload contains a text, letters compared without case."""
    if packet.payload is None:
        return nobody_knows("the payload", f"it contains {shown(match.pattern)}")
    return _contains(match.pattern, packet.payload)


# A policy may have thousands of texts, and "what if" walks the same packet again and again.
@lru_cache(maxsize=32768)
def _contains(pattern: bytes, payload: bytes) -> MatchResult:
    holds = pattern.translate(_FOLD) in _folded(payload)
    return MatchResult(holds, f"{'contains' if holds else 'does not contain'} {shown(pattern)}")


@lru_cache(maxsize=16)
def _folded(payload: bytes) -> bytes:
    return payload.translate(_FOLD)
