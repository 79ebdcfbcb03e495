"""`sipfw rollback`: bring an earlier firewall back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.ask import agreed_to_lose
from sipfw.cli.history import difference_lines
from sipfw.cli.options import root_option
from sipfw.cli.outcome import report
from sipfw.cli.output import complain
from sipfw.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.deploy.rollback import Step
    from sipfw.host.files import Layout

# Lines of the difference; the whole of it shows sipfw history --diff.
_LINES = 20


@click.command("rollback")
@click.argument("generation", type=click.IntRange(1, 999_999_999), required=False)
@click.option(
    "--force", is_flag=True, help="Roll back even if it locks out somebody who is logged in by ssh."
)
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@root_option
def command(*, generation: int | None, force: bool, yes: bool, root: Path) -> int:
    """Make GENERATION live again; by default the last one before that differs from the present.

    What differs is printed first. It may be no firewall at all; at a terminal it asks before that,
    and exit code 1 means that you said no. An apply that waits to be confirmed is taken back.
    Learned and banned addresses stay where their sets stay.
    """
    from sipfw.deploy.overtaken import process_started
    from sipfw.deploy.rollback import destination, rollback
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options

    options, called, layout = Options(force=force), process_started(), Layout(root)
    step = destination(layout, generation)
    _show(layout, step)
    if step.coming is None and not agreed_to_lose(_losses(layout), "open the host?", yes=yes):
        return Exit.DIFFERENT
    report("rolled back", rollback(layout, generation, options, called=called))
    _remind(layout, step)
    return Exit.CLEAN


def _show(layout: Layout, step: Step) -> None:
    from sipfw.deploy.history import difference_between

    ends = ["no firewall" if n is None else f"generation {n}" for n in (step.live, step.coming)]
    complain(f"from {ends[0]} to {ends[1]}:")
    if step.coming is not None:
        for line in difference_lines(difference_between(layout, step.live, step.coming), _LINES):
            complain(f"  {line}")


def _losses(layout: Layout) -> Iterator[str]:
    from sipfw.deploy.archive import inventory
    from sipfw.words import pluralize

    yield "before this there was no firewall of sipfw; SIP is unguarded then"
    found = inventory(layout)
    if found.bans:
        yield f"{pluralize(found.bans, 'ban by hand', 'bans by hand')} would be lost"
    if found.trusts:
        yield f"{pluralize(found.trusts, 'temporary trust')} would be lost"


def _remind(layout: Layout, step: Step) -> None:
    """Say that the next apply would bring back what was rolled back."""
    from sipfw.deploy.generations import Generation, read_generation
    from sipfw.deploy.made_from import policy_file

    made = None if step.live is None else read_generation(layout, step.live)
    file = policy_file(made.source) if isinstance(made, Generation) else None
    if file is not None and step.live != step.coming:
        complain(
            f"{file} still holds what was rolled back; the next sipfw apply makes it live again"
        )
