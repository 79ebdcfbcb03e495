"""`sipfw restore`: what a unit runs at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.outcome import report
from sipfw.cli.output import complain
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("restore")
@root_option
def command(*, root: Path) -> int:
    """Make the last confirmed firewall live, after a restart for example.

    What an interrupted apply has left is taken back first.
    """
    from sipfw.deploy.rollback import restore
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options

    outcome = restore(Layout(root), Options())
    if outcome is None:
        did(changed=False, generation=None)
        complain("nothing to restore: no generation was in force")
    else:
        report("restored", outcome)
    return Exit.CLEAN
