"""Lowered nftables statements as data: the one form behind text and kernel calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sipfw.ruleset.rule import Goto

TABLE = "sipfw"


@dataclass(frozen=True, slots=True)
class NftRule:
    """One rule: `match` and `action` are finished statements, the counter stands between them.

    A rule that is not `counted` only leads on: the rules behind it say how many packets it met.
    """

    comment: str
    match: str
    action: str
    counted: bool = True


@dataclass(frozen=True, slots=True)
class NftChain:
    """A chain; `base` is the line that hooks it, None for one that is only jumped to."""

    name: str
    summary: str
    rules: tuple[NftRule, ...]
    base: str | None = None


@dataclass(frozen=True, slots=True)
class NftTextRule:
    """A search for a text anywhere behind the IP header, letters compared without case."""

    comment: str
    pattern: bytes
    offset: int
    verdict: Literal["drop"] | Goto


@dataclass(frozen=True, slots=True)
class NftTextChain:
    """A chain of searches; its name changes with its content, so it is never edited in place."""

    name: str
    rules: tuple[NftTextRule, ...]


@dataclass(frozen=True, slots=True)
class NftSet:
    """One set. `static` ones are replaced as a whole, others keep what the kernel learned.

    Elements of a `metered` set carry a limit of their own, which only a packet can give them. `of`
    names the set of the ruleset that it comes from, if any.
    """

    name: str
    summary: str
    type: str
    flags: tuple[str, ...]
    elements: tuple[str, ...] = ()
    static: bool = False
    timeout: int | None = None
    size: int | None = None
    metered: bool = False
    of: str = ""


@dataclass(frozen=True, slots=True)
class NftPlan:
    """Everything that one ruleset puts into `table inet sipfw`."""

    sets: tuple[NftSet, ...]
    chains: tuple[NftChain, ...]
    texts: tuple[NftTextChain, ...]
