"""What came of each scenario, and whether that is what was expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """Whether a scenario went as it must."""

    STOPPED = "stopped"
    COMPLETED = "completed"
    PASSED = "ATTACK PASSES"
    HURT = "CALL HURT"
    SKIPPED = "not played"


FAILED = frozenset({Verdict.PASSED, Verdict.HURT})


@dataclass(frozen=True, slots=True)
class Result:
    """One scenario over one family.

    Of an attack `tried` are the packets (or guesses) sent and `got` those that reached the switch;
    of good traffic the transactions tried and completed. `sent` and `arrived` are moments in
    seconds from the start. `why` says what failed first, or why it was not played.
    """

    name: str
    title: str
    attack: bool
    version: int
    verdict: Verdict
    tried: int = 0
    got: int = 0
    at_most: int = 0
    rule: str = ""
    why: str = ""
    sent: tuple[float, ...] = field(default=(), repr=False)
    arrived: tuple[float, ...] = field(default=(), repr=False)

    @property
    def label(self) -> str:
        """Return the name with its family."""
        return self.name if self.version == 4 else f"{self.name} (IPv6)"


@dataclass(frozen=True, slots=True)
class Proof:
    """All results on one backend."""

    backend: str
    seconds: float
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """Return the scenarios that went wrong."""
        return tuple(each for each in self.results if each.verdict in FAILED)

    @property
    def proven(self) -> bool:
        """Tell whether something was played, and nothing of it went wrong."""
        played = any(each.verdict is not Verdict.SKIPPED for each in self.results)
        return played and not self.failed


def of_attack(delivered: int, at_most: int) -> Verdict:
    """Judge an attack by what reached the switch."""
    return Verdict.STOPPED if delivered <= at_most else Verdict.PASSED


def of_good(tried: int, completed: int) -> Verdict:
    """Judge good traffic: everything completes. Nothing tried proves nothing."""
    return Verdict.COMPLETED if 0 < tried == completed else Verdict.HURT
