"""`sipfw history`: which rulesets were live, and which can come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say, say_json, table
from sipfw.errors import Exit
from sipfw.words import stored_moment_text

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.deploy.history import Entry

_HEAD = ("", "generation", "when", "who", "backend", "state", "policy")


@click.command("history")
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, root: Path, as_json: bool) -> int:
    """List the generations, newest last; * marks the one that is live."""
    from sipfw.deploy.files import Layout
    from sipfw.deploy.history import history

    entries = history(Layout(root))
    if as_json:
        say_json([_data(item) for item in entries])
    elif entries:
        for line in table([_HEAD, *(_row(item) for item in entries)], right={1}):
            say(line)
    else:
        complain("nothing was applied yet")
    return Exit.CLEAN


def _row(item: Entry) -> tuple[str, ...]:
    made = item.generation
    star, number = "*" if item.live else "", str(item.number)
    if made is None:
        return star, number, "-", "-", "-", item.state, ""
    when = stored_moment_text(made.time)
    return star, number, when, made.who, made.backend, item.state, made.source


def _data(item: Entry) -> dict[str, Any]:
    made = item.generation
    return {
        "generation": item.number,
        "live": item.live,
        "state": item.state,
        "seconds_left": None if item.seconds_left is None else round(item.seconds_left, 1),
        "time": made and made.time,
        "who": made and made.who,
        "backend": made and made.backend,
        "ipset": made and made.ipset,
        "source": made and made.source,
        "before": made and made.before,
        "digest": made and made.digest,
        "confirmed": made and made.confirmed,
    }
