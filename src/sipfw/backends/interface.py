"""What a backend is, and what it reads back: one neutral form for every kernel interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sipfw.ruleset.rule import Family


@dataclass(frozen=True, slots=True)
class LiveRule:
    """A rule in the kernel; `rule_id` is None when it does not carry our mark.

    `line` is the kernel's own listing of it, without counters. A rule that is not `counted` has
    none, and its figures are 0.
    """

    rule_id: str | None
    digest: str | None
    packets: int
    bytes: int
    line: str
    counted: bool = True


@dataclass(frozen=True, slots=True)
class LiveChain:
    """A user chain that holds a rule of ours, or has the name of one of our chains."""

    family: Family
    table: str
    name: str
    rules: tuple[LiveRule, ...]


@dataclass(frozen=True, slots=True)
class LiveJump:
    """A rule of ours in a built-in chain; `before` are the rules that see packets first."""

    family: Family
    table: str
    hook: str
    rule: LiveRule
    before: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LiveSetState:
    """A set of ours; `elements` only for static sets, whose content is the policy's."""

    name: str
    type: str
    header: tuple[str, ...]
    entries: int
    elements: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Live:
    """Everything of ours that one namespace's kernel holds; `dormant` when no packet meets it."""

    chains: tuple[LiveChain, ...]
    jumps: tuple[LiveJump, ...]
    sets: tuple[LiveSetState, ...]
    dormant: bool = False


class LiveReader(Protocol):
    """Reads what is live without changing anything."""

    def live(self, chain_names: frozenset[str], static_sets: frozenset[str]) -> Live:
        """Return our chains, jumps and sets, and chains that only have one of these names."""
        ...
