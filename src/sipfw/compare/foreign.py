"""A rule of somebody else as plain data: what it asks of a packet, and what it does with it.

The readers make it: kernel/xtables/foreign.py and kernel/nft/foreign.py. What no reader understands
is a text in `unsure`; a condition that is asked of nobody is an empty tuple. Several conditions of
one kind all have to hold.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sipfw.ruleset.addresses import IpAddress, IpNetwork
    from sipfw.ruleset.rule import Family

T = TypeVar("T")

LAST_PORT = 65535
EVERY_PORT = PortRange(0, LAST_PORT)


class Verdict(StrEnum):
    """What a rule does with what fits."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    # TARPIT and its like deny, but TCP alone: no wall.
    TRAP = "trap"
    RETURN = "return"
    # A program that is asked and accepts lets the packet skip the rest of the hook.
    QUEUE = "queue"
    JUMP = "jump"
    GOTO = "goto"
    # To another address: DNAT.
    SEND = "send"
    # To another port of this host: REDIRECT, TPROXY.
    REDIRECT = "redirect"
    # One verdict for each of `entries`.
    MAP = "map"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """What a packet has must be one of these; with `negated`, none of them."""

    values: tuple[T, ...]
    negated: bool = False


class PortSide(StrEnum):
    """Which port of a packet is asked for."""

    DESTINATION = "destination"
    SOURCE = "source"
    EITHER = "either"
    # The destination before any translation, which connection tracking keeps.
    ORIGINAL = "original"


@dataclass(frozen=True, slots=True)
class AskedPorts(Asked[PortRange]):
    """The same of a port."""

    side: PortSide = PortSide.DESTINATION

    @property
    def fitting(self) -> tuple[PortRange, ...]:
        """The ports that fit, whether negated or not."""
        return tuple(_all_but(self.values)) if self.negated else self.values


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one rule.

    `protocols` and `states` are in lower case, `sets` the names of sets that the packet's source or
    another part of it is looked up in, `marks` those of the packet or its connection. Interfaces
    may end in a wildcard, `+` or `*`. `opens` tells whether the TCP flags are those of a packet
    that opens a connection, None where they are not asked.
    """

    families: tuple[Asked[Family], ...] = ()
    protocols: tuple[Asked[str], ...] = ()
    ports: tuple[AskedPorts, ...] = ()
    sources: tuple[Asked[IpNetwork], ...] = ()
    destinations: tuple[Asked[IpNetwork], ...] = ()
    sets: tuple[Asked[str], ...] = ()
    in_interfaces: tuple[Asked[str], ...] = ()
    out_interfaces: tuple[Asked[str], ...] = ()
    states: tuple[Asked[str], ...] = ()
    destination_types: tuple[Asked[str], ...] = ()
    marks: tuple[Asked[int], ...] = ()
    opens: bool | None = None
    unsure: tuple[str, ...] = ()

    @property
    def fit_all(self) -> bool:
        """Whether nothing is asked."""
        return self == Conditions()

    @property
    def negates(self) -> bool:
        """Whether anything is asked that must not hold."""
        asked = (getattr(self, item.name) for item in fields(self))
        kinds = (kind for kind in asked if isinstance(kind, tuple))
        return any(item.negated for kind in kinds for item in kind if isinstance(item, Asked))

    @property
    def is_loopback(self) -> bool:
        """Whether it is for the host's talk with itself, which sipfw leaves alone."""
        return any(item == Asked(("lo",)) for item in self.in_interfaces)

    def ports_of(self, *sides: PortSide) -> Iterator[AskedPorts]:
        """Yield the conditions on these ports, on the destination where none is named."""
        wanted = sides or (PortSide.DESTINATION,)
        return (item for item in self.ports if item.side in wanted)


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a rule sends packets: `ports` are None where they stay, `addresses` a range or none.

    `of` are the ports whose packets go there, None where that is all of the rule.
    """

    ports: PortRange | None
    addresses: tuple[IpAddress, ...] = ()
    of: PortRange | None = None


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """One rule; `line` is the kernel's own listing of it, without counters.

    `target` is the chain of a jump, otherwise the name that the listing has. `ours` has our mark,
    and is no foreign rule at all: it stands among them. `helper` is the helper of connection
    tracking that it attaches, `untracks` tells whether it keeps what fits out of that, and `zone`
    whether it puts it into a zone of its own. `marks` tells whether it writes a mark, `queues` are
    the queues whose packets are dropped where no program takes them. `unread` names what it does
    with the packet that nobody here can tell.
    """

    line: str
    asks: Conditions = Conditions()
    verdict: Verdict = Verdict.NONE
    target: str = ""
    sent: tuple[Sent, ...] = ()
    entries: tuple[ForeignRule, ...] = ()
    ours: bool = False
    helper: str | None = None
    untracks: bool = False
    zone: bool = False
    marks: bool = False
    queues: tuple[int, ...] = ()
    unread: str = ""

    @property
    def each(self) -> tuple[ForeignRule, ...]:
        """The entries of a map of verdicts, or the rule itself."""
        return self.entries if self.verdict is Verdict.MAP else (self,)

    @property
    def leads_to(self) -> str | None:
        """The chain of a jump."""
        return self.target if self.verdict in {Verdict.JUMP, Verdict.GOTO} else None

    @property
    def denies(self) -> bool:
        """Whether what fits does not get through."""
        return self.verdict in {Verdict.DROP, Verdict.REJECT, Verdict.TRAP}

    @property
    def is_wall(self) -> bool:
        """Whether no packet comes behind this rule, or past it."""
        return self.verdict in {Verdict.DROP, Verdict.REJECT} and self.asks.fit_all


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """A chain; `denies` where it is a built-in one whose policy lets nothing through.

    `ours` tells that each of its rules has our mark.
    """

    name: str
    rules: Sequence[ForeignRule]
    denies: bool = False
    ours: bool = False


def port_range(first: str, last: str) -> PortRange:
    """Return the range; ValueError for what is none."""
    found = PortRange(int(first), int(last))
    if not 0 <= found.first <= found.last <= LAST_PORT:
        raise ValueError(f"{first}-{last} is no range of ports")
    return found


def _all_but(ranges: Iterable[PortRange]) -> Iterator[PortRange]:
    start = 0
    for item in sorted(ranges):
        if start < item.first:
            yield PortRange(start, item.first - 1)
        start = max(start, item.last + 1)
    if start <= LAST_PORT:
        yield PortRange(start, LAST_PORT)
