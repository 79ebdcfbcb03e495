"""`sipfw confirm`: keep what was applied with --confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("confirm")
@root_option
@click.option(
    "--force", is_flag=True, help="Confirm even if it locks out somebody who logged in since."
)
def command(*, root: Path, force: bool) -> int:
    """Keep the firewall that waits to be confirmed; without this the old one comes back."""
    from sipfw.deploy.rollback import confirm
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options

    kept = confirm(Layout(root), Options(force=force))
    remark(kept.warnings)
    did(changed=True, generation=kept.number)
    complain(f"confirmed: generation {kept.number} stays")
    return Exit.CLEAN
