"""The ruleset of the last apply, as its generation keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.generations import Damaged, read_generation, read_ruleset

if TYPE_CHECKING:
    from sipfw.monitor.doctor.host import HostView
    from sipfw.ruleset.model import Ruleset


def applied_ruleset(host: HostView) -> Ruleset | None:
    """Return it; None where nothing is applied, or where its generation cannot be read."""
    applied = host.applied
    if applied is None or applied.generation is None:
        return None
    generation = read_generation(host.layout, applied.generation)
    if isinstance(generation, Damaged):
        return None
    ruleset = read_ruleset(host.layout, generation)
    return None if isinstance(ruleset, Damaged) else ruleset
