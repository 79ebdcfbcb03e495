"""`sipfw remove`: take everything of ours off this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.ask import agreed_to_lose
from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.deploy.archive import Inventory


@click.command("remove")
@root_option
@click.option("--purge", is_flag=True, help="Leave no archive, and delete older ones.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
def command(*, root: Path, purge: bool, yes: bool) -> int:
    """Remove sipfw's rules, chains, sets and sysctls; nothing else is touched.

    At a terminal it asks before. The generations and bans by hand go into an archive, which
    `sipfw apply --take-up` takes up again. Exit code 1 means that you said no.
    """
    from sipfw.deploy.apply import remove
    from sipfw.deploy.archive import inventory
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.upkeep.saved_state import warnings

    layout = Layout(root)
    losses = list(_losses(inventory(layout), purge=purge))
    if not agreed_to_lose(losses, "remove the firewall?", yes=yes):
        return Exit.DIFFERENT
    done = remove(layout, Options(), purge=purge)
    for note in done.outcome.notes:
        complain(f"note: {note}")
    # Now that nothing of ours makes their sets, they would not be loaded at the next boot.
    remark([*done.outcome.warnings, *warnings(layout)])
    did(changed=True, archive=None if done.archive is None else str(done.archive.folder))
    left = "apart from what the notes name, " if done.outcome.notes else ""
    complain(f"removed: {left}nothing of sipfw is left; SIP is unguarded now")
    if done.archive is not None:
        what = _counted(done.archive.generations, done.archive.bans)
        complain(f"archived in {done.archive.folder}: {what}; sipfw apply --take-up takes it up")
    return Exit.CLEAN


def _losses(found: Inventory, *, purge: bool) -> Iterator[str]:
    yield "no firewall of sipfw is in force then; SIP is unguarded"
    if found.generations or found.bans:
        fate = "are lost" if purge else "go into an archive"
        yield f"{_counted(found.generations, found.bans)} {fate}"
    if found.trusts:
        yield f"{pluralize(found.trusts, 'temporary trust')} {_end(found.trusts)}"
    if purge:
        yield "archives of earlier removals are deleted"


def _end(count: int) -> str:
    return "ends" if count == 1 else "end"


def _counted(generations: int, bans: int) -> str:
    ways = ((generations, "generation", "generations"), (bans, "ban by hand", "bans by hand"))
    return " and ".join(pluralize(number, one, many) for number, one, many in ways if number)
