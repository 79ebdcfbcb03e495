"""The ruleset of the last apply, as its generation keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.generations import Damaged, read_generation, read_ruleset

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.monitor.doctor.host import HostView
    from sipfw.ruleset.model import Ruleset


def applied_ruleset(host: HostView) -> Ruleset | None:
    """Return it; None where nothing is applied, or where its generation cannot be read."""
    applied = host.applied
    return None if applied is None else ruleset_of(host.layout, applied.generation)


def ruleset_of(layout: Layout, number: int | None) -> Ruleset | None:
    """Return the ruleset of a generation; None without one, or where it cannot be read."""
    generation = None if number is None else read_generation(layout, number)
    if generation is None or isinstance(generation, Damaged):
        return None
    ruleset = read_ruleset(layout, generation)
    return None if isinstance(ruleset, Damaged) else ruleset
