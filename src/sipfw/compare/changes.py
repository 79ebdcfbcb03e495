"""The changes that an apply would make, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.ruleset.rule import Family


class Action(StrEnum):
    """What an apply does to a thing."""

    ADD = "add"
    REMOVE = "remove"
    CHANGE = "change"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule of one family; `detail` is the kernel's listing where no policy explains it."""

    action: Action
    family: Family
    table: str
    chain: str
    layer: str
    id: str
    summary: str
    origin: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class JumpChange:
    """A rule of ours in a built-in chain, or in a base chain of our table."""

    action: Action
    family: Family
    table: str
    hook: str
    summary: str
    origin: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ChainChange:
    """A chain that comes or goes with its rules."""

    action: Action
    family: Family
    table: str
    name: str
    layer: str
    rules: int


@dataclass(frozen=True, slots=True)
class SetChange:
    """A set that comes, goes, or gets another header (`timeout 60 -> 120`) or other members."""

    action: Action
    name: str
    summary: str
    origin: str
    header: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SysctlChange:
    """A kernel setting; `before` is None where the kernel has none yet."""

    name: str
    before: int | None
    after: int
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Kernel settings of the host.

    `actual` is what they are, `returned` what goes back to the host's own value since the policy
    makes it no longer, `fixed` names what this host does not let anybody set.
    """

    actual: Mapping[str, int | None]
    returned: Mapping[str, int]
    fixed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that an apply would change.

    `fresh` tells that nothing of ours is live, `asleep` that our table is switched off (dormant),
    `fixed` lists settings that an apply cannot make here: no difference that it could end, nor are
    those in `passed`, rules of others that let packets past ours (docs/decisions/0006).
    """

    rules: tuple[RuleChange, ...]
    jumps: tuple[JumpChange, ...]
    chains: tuple[ChainChange, ...]
    sets: tuple[SetChange, ...]
    sysctls: tuple[SysctlChange, ...]
    fixed: tuple[SysctlChange, ...] = ()
    fresh: bool = False
    asleep: bool = False
    passed: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Tell whether an apply would change nothing."""
        changes = (self.rules, self.jumps, self.chains, self.sets, self.sysctls)
        return not self.asleep and not any(changes)
