"""What the kernel has learned, as far as somebody has looked: read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from sipfw.ruleset.addresses import IpAddress
from sipfw.ruleset.source import Door

# A source by its address or the first one of its prefix; an endpoint by address and door. A bare
# address among endpoints stands for all its doors: lists of xt_recent know no ports.
Key: TypeAlias = IpAddress | tuple[IpAddress, Door]
Elements: TypeAlias = Mapping[Key, int | None]


class Limit(StrEnum):
    """Where a source stands against a rate, a window or a number of connections."""

    UNKNOWN = "unknown"
    WITHIN = "within"
    EXCEEDED = "exceeded"


@dataclass(frozen=True, slots=True)
class Volume:
    """What an entry has counted so far, in bytes; a packet that looks adds itself.

    `times`: how often. Making an entry counts in ipset, and so does the first look at it.
    """

    counted: int
    times: int = 1


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
    the source's own, `common` those of all sources together: a rule may ask both. A `Volume`
    depends on the packet that asks.
    """

    elements: Mapping[str, Elements] = field(default_factory=dict)
    limits: Mapping[str, Limit | Volume] = field(default_factory=dict)
    common: Mapping[str, Limit] = field(default_factory=dict)

    def ask(self, name: str, key: Key) -> Membership:
        """Look an element up in a set; a bare address among endpoints means: from any port.

        That is unknown where the set holds some of its ports.
        """
        known = self.elements.get(name)
        if known is None:
            return Membership(None)
        if key in known:
            return Membership(present=True, left=known[key])
        if isinstance(key, tuple):
            return Membership(key[0] in known, known.get(key[0]))
        some = any(isinstance(each, tuple) and each[0] == key for each in known)
        return Membership(None if some else False)
