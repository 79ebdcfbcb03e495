"""What a check says: one sentence, how bad it is, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DiagnosisState(StrEnum):
    """How bad it is, worst first; `unknown` says that the check could not be made."""

    PROBLEM = "problem"
    WARNING = "warning"
    UNKNOWN = "unknown"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer of one check; `fix` is a command for root, None where there is nothing to do."""

    name: str
    state: DiagnosisState
    sentence: str
    fix: str | None = None


class CannotTellError(Exception):
    """A check cannot be made here; the text says why."""


class AbsentError(CannotTellError):
    """The file that would tell is not there."""


class DamagedError(CannotTellError):
    """The record of sipfw is there and cannot be used."""
