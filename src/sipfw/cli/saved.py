"""`sipfw saved`: rules of sipfw in the files that other programs load at boot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.host.files import Layout


@click.command("saved")
@root_option
@click.option("--make-sets", is_flag=True, help="Create the sets that saved rules refer to, empty.")
@click.option(
    "--load", is_flag=True, help="Load the files that nft could not load, without sipfw's rules."
)
@click.option(
    "--clean",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Remove sipfw's rules from FILE; keeps a copy beside it.",
)
def command(*, root: Path, make_sets: bool, load: bool, clean: Path | None) -> int:
    """List the files of other programs that sipfw's rules were saved into, and what to do.

    netfilter-persistent save, service iptables save and nft list ruleset save sipfw's rules with
    those of the host. The units of sipfw install-service use --make-sets and --load at boot, so
    that such files are loaded all the same. Exit code 1 means that a file would not be loaded.
    """
    from sipfw.host.files import Layout

    if make_sets + load + (clean is not None) > 1:
        raise click.UsageError("one of --make-sets, --load and --clean at a time")
    layout = Layout(root)
    if make_sets:
        return _make_sets(layout)
    if load:
        return _load(layout)
    return _list(layout) if clean is None else _clean(layout, clean)


def _make_sets(layout: Layout) -> int:
    from sipfw.upkeep.saved_sets import make_sets

    made = make_sets(layout)
    did(changed=bool(made))
    what = pluralize(len(made), "empty set")
    complain(f"made {what} that saved rules name" if made else "no set is missing for saved rules")
    return Exit.CLEAN


def _load(layout: Layout) -> int:
    from sipfw.upkeep.saved_load import load_left_out

    done = load_left_out(layout)
    did(changed=any(not item.fault for item in done))
    for item in done:
        if item.fault:
            complain(f"{item.path}: not loaded: {item.fault}")
        else:
            names = ", ".join(item.tables)
            complain(f"{item.path}: its service could not load it; loaded from here: {names}")
    if not done:
        complain("no saved file was left out for the rules of sipfw in it")
    return Exit.DIFFERENT if any(item.fault for item in done) else Exit.CLEAN


def _clean(layout: Layout, path: Path) -> int:
    from sipfw.upkeep.saved_clean import clean

    copy = clean(layout, path)
    did(changed=copy is not None)
    if copy is None:
        complain(f"{path}: holds nothing of sipfw; nothing was changed")
    else:
        complain(f"{path}: written without the rules of sipfw; as it was it is in {copy}")
    return Exit.CLEAN


def _list(layout: Layout) -> int:
    from sipfw.diagnostics import Severity
    from sipfw.upkeep.saved_state import judged

    verdicts = judged(layout)
    for item in verdicts:
        say(str(item.diagnostic))
        if item.fix is not None:
            say(f"  fix: {item.fix}")
    if not verdicts:
        complain("no file of another program holds rules of sipfw")
    bad = any(item.diagnostic.severity is Severity.WARNING for item in verdicts)
    return Exit.DIFFERENT if bad else Exit.CLEAN
