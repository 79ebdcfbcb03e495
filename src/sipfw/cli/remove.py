"""`sipfw remove`: take everything of ours off this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("remove")
@root_option
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
def command(*, root: Path, yes: bool) -> int:
    """Remove sipfw's rules, chains, sets and sysctls; nothing else is touched."""
    from sipfw.deploy.apply import remove
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.upkeep.saved_state import warnings

    outcome = remove(Layout(root), Options())
    for note in outcome.notes:
        complain(f"note: {note}")
    # Now that nothing of ours makes their sets, they would not be loaded at the next boot.
    remark([*outcome.warnings, *warnings(Layout(root))])
    left = "apart from what the notes name, " if outcome.notes else ""
    complain(f"removed: {left}nothing of sipfw is left; SIP is unguarded now")
    return Exit.CLEAN
