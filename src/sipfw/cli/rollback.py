"""`sipfw rollback`: bring an earlier firewall back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.outcome import report
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("rollback")
@click.argument("generation", type=click.IntRange(1, 999_999_999), required=False)
@click.option(
    "--force", is_flag=True, help="Roll back even if it locks out somebody who is logged in by ssh."
)
@root_option
def command(*, generation: int | None, force: bool, root: Path) -> int:
    """Make GENERATION live again; by default what was live before the present one.

    That may be no firewall at all. An apply that waits to be confirmed is taken back. Learned and
    banned addresses stay where their sets stay.
    """
    from sipfw.deploy.overtaken import process_started
    from sipfw.deploy.rollback import rollback
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options

    options, called = Options(force=force), process_started()
    report("rolled back", rollback(Layout(root), generation, options, called=called))
    return Exit.CLEAN
