"""What one match says of one packet, in a form that carries what was assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.ruleset.match import L4Proto
    from sipfw.simulate.packet import Packet


@dataclass(frozen=True, slots=True)
class MatchResult:
    """Whether a match holds. `unless` names what was assumed, None where all was known."""

    holds: bool
    why: str
    unless: str | None = None


def of_protocol(proto: L4Proto, packet: Packet) -> MatchResult:
    """Answer whether a packet carries this protocol."""
    if packet.protocol == proto.value:
        return MatchResult(holds=True, why=f"is {packet.protocol}")
    return MatchResult(holds=False, why=f"is {packet.protocol}, not {proto}")


def nobody_knows(thing: str, unless: str) -> MatchResult:
    """Answer a match about something that is not known: it does not hold, `unless` it does."""
    return MatchResult(holds=False, why=f"{thing} is not known, taken as different", unless=unless)


def shown(pattern: bytes) -> str:
    """Write bytes for an operator, in quotes, whatever they hold."""
    text = pattern.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        text = "".join(chr(code) if 32 <= code < 127 else f"\\x{code:02x}" for code in pattern)
    return f"'{text}'"
