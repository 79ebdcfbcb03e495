"""What an operator should know of his host before a ruleset goes live on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.monitor.doctor.closed import closed_protocols
from sipfw.monitor.doctor.containers import unnamed_containers
from sipfw.monitor.doctor.stricter.findings import require_no_loss
from sipfw.monitor.doctor.ways_past import before_apply

if TYPE_CHECKING:
    from sipfw.diagnostics import Diagnostic
    from sipfw.monitor.doctor.host import HostView
    from sipfw.ruleset.model import Ruleset


def remarks(host: HostView, ruleset: Ruleset, *, force: bool = False) -> list[Diagnostic]:
    """Return warnings and notes; BackendError where somebody would be cut off, unless forced."""
    return [
        *unnamed_containers(host, ruleset),
        *require_no_loss(host, ruleset, force=force),
        *closed_protocols(host, ruleset),
        *before_apply(host, ruleset),
    ]
