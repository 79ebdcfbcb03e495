"""What the kernel has learned, as far as somebody has looked: read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sipfw.walk.packet import IpAddress

Elements = Mapping[IpAddress, int | None]


class Limit(StrEnum):
    """Where a source stands against a rate, a window or a number of connections."""

    UNKNOWN = "unknown"
    WITHIN = "within"
    EXCEEDED = "exceeded"


@dataclass(frozen=True, slots=True)
class Membership:
    """A dynamic set's answer: `present` is None where nobody has looked into the set.

    `left` is the remaining timeout in seconds, None where it is not known.
    """

    present: bool | None
    left: int | None = None


@dataclass(frozen=True, slots=True)
class LiveState:
    """Elements of the dynamic sets by set name, and limits by the id of the rule that asks.

    A set that `elements` lacks is unknown; a set that is there and empty is empty. `limits` are
    the source's own, `common` those of all sources together: a rule may ask both.
    """

    elements: Mapping[str, Elements] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    common: Mapping[str, Limit] = field(default_factory=dict)

    def ask(self, name: str, address: IpAddress) -> Membership:
        """Look an address up in a set."""
        known = self.elements.get(name)
        if known is None:
            return Membership(None)
        return Membership(address in known, known.get(address))
