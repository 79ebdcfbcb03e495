"""`sipfw confirm`: keep what was applied with --confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("confirm")
@root_option
def command(*, root: Path) -> int:
    """Keep the firewall that waits to be confirmed; without this the old one comes back."""
    from sipfw.deploy.files import Layout
    from sipfw.deploy.rollback import confirm
    from sipfw.deploy.targets import Options

    number = confirm(Layout(root), Options())
    complain(f"confirmed: generation {number} stays")
    return Exit.CLEAN
