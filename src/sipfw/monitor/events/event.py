"""What is remembered of a source that was dropped, and what one look tells about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpNetwork


class EventKind(StrEnum):
    """How a source was kept out."""

    BAN = "ban"
    HAND = "ban by hand"
    LOGINS = "logins dropped"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Event:
    """One source, one rule, one stretch of time. Moments are seconds since 1970.

    `source` is None for those of a crowd that were only counted: then `sources` is how many there
    were at one look, at least. `until` is when a ban ends or was ended, None for what has no end of
    its own. `who` ordered it, `freed` names who ended it by hand. `packets` are those that looks
    have seen, so there were at least so many. `known`: the switch had accepted a login of the
    source before.
    """

    kind: EventKind
    source: IpNetwork | None
    layer: str
    rule: str
    reason: str
    who: str
    first: float
    last: float
    until: float | None = None
    packets: int = 0
    sources: int = 1
    known: bool = False
    freed: str = ""

    @property
    def ends(self) -> float:
        """Return the last moment that it is about."""
        return self.last if self.until is None else max(self.last, self.until)

    @property
    def subject(self) -> str:
        """Name the source: one address bare."""
        if self.source is None:
            return f"{self.sources:,} others"
        whole = self.source.num_addresses == 1
        return str(self.source.network_address if whole else self.source)
