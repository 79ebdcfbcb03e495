"""A rule: all its matches must hold, then its one action happens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sipfw.ruleset.match import ONE_ADDRESS, Direction, Match, PrefixLengths


class Family(StrEnum):
    """Address family in nft's words. A rule without one holds for both."""

    IP = "ip"
    IP6 = "ip6"


@dataclass(frozen=True, slots=True)
class Accept:
    """Deliver, asking nobody else of this hook."""


@dataclass(frozen=True, slots=True)
class Done:
    """sipfw has no objection: leave all its chains of this hook, foreign rules may still judge."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Discard without an answer: an answer would help a scanner and could be aimed by a spoofer."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Discard a TCP segment and end its connection for the sender.

    Only behind connection tracking, in the input hook: what is spoofed never gets there. A stream
    must not be met with silence, or its sender repeats the segment and nothing behind it arrives.
    """


@dataclass(frozen=True, slots=True)
class Return:
    """Go back to the chain that jumped here."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Ask another chain and come back if it has no verdict."""

    chain: str


@dataclass(frozen=True, slots=True)
class Goto:
    """Leave the rest of this chain to another one; its end is the end of this one."""

    chain: str


@dataclass(frozen=True, slots=True)
class UpdateSet:
    """Add the address to a dynamic set, or restart its timeout; then go on."""

    set: str
    direction: Direction = Direction.SOURCE


@dataclass(frozen=True, slots=True)
class AddOnce:
    """Add the address to a dynamic set unless it is there, keeping its timeout; then go on.

    `counting`: each packet counts in its entry of the set, the first one as well.
    """

    set: str
    direction: Direction = Direction.SOURCE
    counting: bool = False


@dataclass(frozen=True, slots=True)
class DeleteFromSet:
    """Take the address out of a dynamic set; then go on."""

    set: str
    direction: Direction = Direction.SOURCE


@dataclass(frozen=True, slots=True)
class Record:
    """Note the source's packet in a list that `SeenAtLeast` asks; then go on."""

    list: str
    prefix: PrefixLengths = ONE_ADDRESS


@dataclass(frozen=True, slots=True)
class NoTrack:
    """Keep the packet out of connection tracking; then go on with the next hook."""


@dataclass(frozen=True, slots=True)
class Log:
    """Tell about the packet, `prefix` first; then go on.

    `group` is the NFLOG group whose reader is told; without one the kernel's own log is.
    """

    prefix: str
    group: int | None = None


Action = (
    Accept
    | Done
    | Drop
    | Reset
    | Return
    | Jump
    | Goto
    | UpdateSet
    | AddOnce
    | DeleteFromSet
    | Record
    | NoTrack
    | Log
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The policy value that caused a rule: `limits.hashlimit` of `policy.yaml` line 14."""

    field: str
    file: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.field}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition with its consequence.

    `id` is readable, unique in the ruleset and stable when other rules change. `summary` is the
    sentence an operator reads beside the counter. Matches stand in the order of evaluation,
    cheapest first.
    """

    id: str
    matches: tuple[Match, ...]
    action: Action
    summary: str
    origin: Origin
    family: Family | None = None
