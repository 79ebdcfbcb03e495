"""`sipfw bans`: who is banned, why and for how long still."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.manual import timed_cells, write_output
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark, say_json, say_lines, table
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.manual.bans import ActiveBans, Ban

_HEAD = ("address", "left", "until", "over", "cause", "why", "by")


@click.command("bans")
@click.option("--json", "as_json", is_flag=True, help="Print or export JSON.")
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path, allow_dash=True, writable=False),
    metavar="FILE",
    help="Write a file that `sipfw ban --import` reads, text or with --json JSON; - is stdout.",
)
@root_option
def command(*, as_json: bool, target: Path | None, root: Path) -> int:
    """Show who is banned now: by hand first, then by packets. Changes nothing.

    The cause is `by hand`, `replies` (the switch refused the logins), `rate-limit` (it sent too
    much), or `by packets` where the failures are forgotten already and either may have been it.
    """
    from sipfw.host.files import Layout
    from sipfw.manual.bans import list_bans
    from sipfw.manual.text import as_json as as_data
    from sipfw.manual.text import as_text

    found, now = list_bans(Layout(root)), time.time()
    _warn(found)
    if target is not None:
        data = as_data(found.found, now)
        text = json.dumps(data, indent=2) + "\n" if as_json else as_text(found.found, now)
        write_output(target, text)
        complain(f"exported: {pluralize(len(found.found), 'ban')}")
    elif as_json:
        say_json(as_data(found.found, now))
    elif found.found:
        say_lines(table([_HEAD, *(_row(ban, now) for ban in found.found)], right={1}))
    else:
        complain("nobody is banned")
    return Exit.CLEAN


def _row(ban: Ban, now: float) -> tuple[str, ...]:
    until = now + (ban.left or 0)
    over = ", ".join(proto.upper() for proto in ban.over)
    cells = timed_cells(ban.source, ban.left, until)
    return *cells, over, ban.cause, ban.reason or "-", ban.who


def _warn(found: ActiveBans) -> None:
    remark(found.faults)
    if found.missing:
        first, more = found.missing[0], len(found.missing) - 1
        others = f" and {more:,} more" if more else ""
        complain(f"banned by hand, but not in the kernel: {first}{others}; put back: sipfw restore")
