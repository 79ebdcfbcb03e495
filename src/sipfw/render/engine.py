"""The part of the script that no policy changes: shell files, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.render.environment import template_source

if TYPE_CHECKING:
    from pathlib import Path

# In the order of an apply; `start` comes before all others and `main`, which runs it, last.
PARTS = (
    "start",
    "host",
    "chains",
    "sets",
    "advice",
    "rehearsal",
    "check",
    "sysctl",
    "apply",
    "back",
    "confirm",
    "remove",
    "status",
    "main",
)


def engine_text(template_dir: Path | None = None) -> str:
    """Return the engine.

    Of the policy it asks the functions `static_sets`, `dynamic_sets`, `rules4`, `rules6`, `probes`
    and `sysctls`.
    """
    return "\n".join(template_source(f"firewall/engine/{part}.sh", template_dir) for part in PARTS)
