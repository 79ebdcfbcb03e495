"""`sipfw refresh`: follow the host names of peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.deploy.refresh import Refreshed


@click.command("refresh")
@root_option
@click.option("--cached", is_flag=True, help="Ask no DNS; use the last good addresses, as at boot.")
def command(*, root: Path, cached: bool) -> int:
    """Resolve the host names of the live policy again and update the peers' addresses.

    Only elements of sets change, never a rule. A name without an answer keeps its last good
    addresses. Refused while an apply waits to be confirmed.
    """
    from sipfw.deploy.files import Layout
    from sipfw.deploy.refresh import refresh
    from sipfw.deploy.targets import Options

    done = refresh(Layout(root), Options(), cached=cached)
    if done is None:
        complain("nothing to refresh: no firewall of sipfw is in force")
        return Exit.CLEAN
    for note in done.notes:
        complain(f"note: {note}")
    if not cached:
        _warn(done)
    _report(done)
    return Exit.INCOMPLETE if done.resolution.failures and not cached else Exit.CLEAN


def _warn(done: Refreshed) -> None:
    from sipfw.deploy.names import resolution_warnings

    remark(resolution_warnings(done.resolution, done.lost))


def _report(done: Refreshed) -> None:
    names = len(done.resolution.addresses) + len(done.resolution.failures)
    if not names:
        complain("nothing to refresh: no peer of the live policy has a host name")
        return
    for change in done.changes:
        for element in change.added:
            complain(f"{change.set}: {element} added")
        for element in change.removed:
            complain(f"{change.set}: {element} removed")
    if not done.changes:
        complain(f"nothing changed: host names looked up: {names}")
        return
    added = sum(len(change.added) for change in done.changes)
    removed = sum(len(change.removed) for change in done.changes)
    complain(f"refreshed: {added} elements added, {removed} removed; the rules are untouched")
