"""Every error that sipfw shows to an operator, and the exit code that goes with it.

    SipfwError
    ├── PolicyError        3   the policy is wrong; nothing was changed
    ├── BackendError       4   the host refused: permission, missing tool, kernel, foreign chains
    └── ApplyError         5   something went live and was taken back

Exit codes 0 (clean), 1 (difference found) and 2 (usage, from click) are not errors of this tree.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.diagnostics import Diagnostic


class Exit(IntEnum):
    """Process exit codes, the same for every command."""

    CLEAN = 0
    DIFFERENT = 1
    USAGE = 2
    POLICY = 3
    BACKEND = 4
    ROLLED_BACK = 5
    INCOMPLETE = 6


class SipfwError(Exception):
    """Base of everything that the command line catches."""

    exit_code: Exit = Exit.BACKEND


class PolicyError(SipfwError):
    """The policy has faults; all of them are in `diagnostics`."""

    exit_code = Exit.POLICY

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(item) for item in self.diagnostics))


class BackendError(SipfwError):
    """The host did not do what was asked.

    `restored` tells whether something had been changed and was put back exactly.
    """

    exit_code = Exit.BACKEND

    def __init__(self, message: str, *, hint: str | None = None, restored: bool = False) -> None:
        self.message = message
        self.hint = hint
        self.restored = restored
        super().__init__(message if hint is None else f"{message}; {hint}")


class ApplyError(BackendError):
    """A ruleset went live, failed its read back, and the old one was restored (or could not be)."""

    exit_code = Exit.ROLLED_BACK
