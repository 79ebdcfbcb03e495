"""Events are put down beside what a command is for: where that fails, it says so and goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.output import complain
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.monitor.top.source import Top


def remember(layout: Layout, found: Top | None = None, *, freed: str = "") -> None:
    """Put down who is banned now, whom `top` has found, and by whom those were freed that ended."""
    try:
        from sipfw.monitor.events.look import look, remember_top

        if found is None:
            look(layout, complain, freed=freed)
        else:
            remember_top(layout, found, complain)
    except BackendError as error:
        complain(f"events are not kept: {error.message}")
