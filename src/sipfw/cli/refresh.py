"""`sipfw refresh`: follow host names and the block lists of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark, wait_for
from sipfw.cli.remember import remember
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.upkeep.refresh import Refreshed, SetUpdate

# More changes than this in one set are counted, not listed.
_LISTED = 20


@click.command("refresh")
@root_option
@click.option("--cached", is_flag=True, help="Do not query DNS or feeds; use the cached answers.")
@click.option("--due", is_flag=True, help="Query only names whose cached answers have expired.")
@click.option(
    "--feeds-now", is_flag=True, help="Fetch every block list now, even if it is not due."
)
@click.option(
    "--accept",
    multiple=True,
    metavar="NAME",
    help="Fetch this block list and accept it even if it is empty or has shrunk. Repeatable.",
)
def command(
    *, root: Path, cached: bool, due: bool, feeds_now: bool, accept: tuple[str, ...]
) -> int:
    """Look up host names, fetch the block lists that are due, and update their sets.

    Only elements of sets change, never a rule. What has no good answer keeps the last good one.
    Refused while an apply waits to be confirmed. Exit code 6 means that a host name has no address,
    or that nothing is dropped by a block list.
    """
    from sipfw.diagnostics import Severity
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.upkeep.refresh import RefreshRequest, refresh

    if cached and (due or feeds_now or accept):
        raise click.UsageError("--cached asks nobody, so it goes with no other option")
    layout = Layout(root)
    if not cached:
        wait_for("asking for host names and block lists")
    done = refresh(
        layout, Options(), cached=cached, due_only=due, wish=RefreshRequest(feeds_now, accept)
    )
    if done is None:
        did(changed=False)
        complain("nothing to refresh: no firewall of sipfw is in force")
        return Exit.CLEAN
    remember(layout)
    for note in done.notes:
        complain(f"note: {note}")
    if not cached:
        _warn(done)
    # A timer runs this: who is left out is worth a line when a list was fetched, not every time.
    remark(item for item in done.lists.remarks if done.asked or item.severity is not Severity.NOTE)
    _report(done)
    incomplete = done.resolution.failures or done.lists.missing
    return Exit.INCOMPLETE if incomplete and not cached else Exit.CLEAN


def _warn(done: Refreshed) -> None:
    from sipfw.deploy.names.cache import resolution_warnings

    remark(resolution_warnings(done.resolution, done.lost))


def _report(done: Refreshed) -> None:
    did(changed=bool(done.changes))
    names = len(done.resolution.addresses) + len(done.resolution.failures)
    lists = len(done.lists.networks) + len(done.lists.missing)
    if not names and not lists:
        complain("nothing to refresh: the live policy names no host and no block list")
        return
    for change in done.changes:
        _list(change)
    if not done.changes:
        looked = [f"host names looked up: {names}"] if names else []
        looked += [f"block lists fetched: {len(done.asked)}"] if lists else []
        complain(f"nothing changed: {', '.join(looked)}")
        return
    added = sum(len(change.added) for change in done.changes)
    removed = sum(len(change.removed) for change in done.changes)
    what = f"{pluralize(added, 'element')} added, {removed:,} removed"
    complain(f"refreshed: {what}; the rules are untouched")


def _list(change: SetUpdate) -> None:
    for word, elements in (("added", change.added), ("removed", change.removed)):
        if len(elements) > _LISTED:
            complain(f"{change.set}: {pluralize(len(elements), 'element')} {word}")
            continue
        for element in elements:
            complain(f"{change.set}: {element} {word}")
