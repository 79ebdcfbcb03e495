"""The record of one walk: which rules were asked, what they answered, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipfw.ruleset.model import Base
    from sipfw.ruleset.rule import Origin, Rule
    from sipfw.simulate.packet import Packet


class Verdict(StrEnum):
    """How a walk ends, as far as sipfw decides it."""

    PASSED = "left to the other rules of this host"
    ACCEPTED = "accepted"
    DROPPED = "dropped"
    RESET = "answered with a reset"


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was asked. `why` is in the operator's words."""

    chain: str
    rule: Rule
    matched: bool
    why: str

    @property
    def rule_id(self) -> str:
        """Return the id of the rule."""
        return self.rule.id

    @property
    def origin(self) -> Origin:
        """Return the policy value that caused the rule."""
        return self.rule.origin

    def __str__(self) -> str:
        return f"{self.chain} {self.rule.id}: {'yes' if self.matched else 'no'}, {self.why}"


@dataclass(frozen=True, slots=True)
class Assumption:
    """What was taken for granted because nobody knows it: the walk holds unless `unless`."""

    rule_id: str
    unless: str

    def __str__(self) -> str:
        return f"unless {self.unless} ({self.rule_id})"


@dataclass(frozen=True, slots=True)
class Stage:
    """The walk through one hook. `decider` is None where the packet fell off the chain's end."""

    base: Base
    steps: tuple[Step, ...]
    decider: Rule | None


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole walk. `changes` are the writes to dynamic sets and lists, in order."""

    packet: Packet
    stages: tuple[Stage, ...]
    verdict: Verdict
    assumptions: tuple[Assumption, ...]
    changes: tuple[str, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps of all hooks in order."""
        return tuple(step for stage in self.stages for step in stage.steps)

    @property
    def deciders(self) -> tuple[Rule, ...]:
        """Return the rule that ended each hook, where one did."""
        return tuple(stage.decider for stage in self.stages if stage.decider is not None)

    @property
    def decider(self) -> Rule | None:
        """Return the rule that had the last word; None if no rule had an opinion."""
        return self.deciders[-1] if self.deciders else None

    @property
    def dropped(self) -> bool:
        """Tell whether the packet was dropped, in silence or with a reset."""
        return self.verdict in {Verdict.DROPPED, Verdict.RESET}
