"""What a check across the values of a policy has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.diagnostics import Severity

if TYPE_CHECKING:
    from sipfw.policy.yaml_tree import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault at a path of the policy; the caller knows which file and line that is.

    `related` is the other value of a clash: where `path` is built in, it is the one to name.
    """

    path: Path
    message: str
    severity: Severity = Severity.ERROR
    related: Path = ()
