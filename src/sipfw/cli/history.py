"""`sipfw history`: which rulesets were live, and which can come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say_json, say_lines, table
from sipfw.errors import Exit
from sipfw.words import format_stored_timestamp, format_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sipfw.deploy.history import HistoryEntry
    from sipfw.upkeep.restores import Restore

# More losses than this are counted, not listed.
_EVENTS = 10
_HEAD = ("", "generation", "when", "who", "backend", "state", "policy")


@click.command("history")
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, root: Path, as_json: bool) -> int:
    """List the generations, newest last; * marks the one that is live.

    Below them, what another program took away and sipfw keep put back.
    """
    from sipfw.deploy.history import history
    from sipfw.host.files import Layout
    from sipfw.upkeep.restores import read_restores

    entries = history(Layout(root))
    restores = read_restores(Layout(root)) if entries else None
    events = () if restores is None else restores.events
    if as_json:
        say_json([_data(item, events) for item in entries])
    elif entries:
        say_lines(table([_HEAD, *(_row(item) for item in entries)], right={1}))
        say_lines(_told(events))
    else:
        complain("nothing was applied yet")
    return Exit.CLEAN


def _row(item: HistoryEntry) -> tuple[str, ...]:
    made = item.generation
    star, number = "*" if item.live else "", str(item.number)
    if made is None:
        return star, number, "-", "-", "-", item.state, ""
    when = format_stored_timestamp(made.time)
    return star, number, when, made.who, made.backend, item.state, made.source


def _told(events: Sequence[Restore]) -> Iterator[str]:
    """Say what was lost and restored, the newest last."""
    if not events:
        return
    yield ""
    if len(events) > _EVENTS:
        yield f"{len(events) - _EVENTS} earlier losses are not shown"
    for item in events[-_EVENTS:]:
        number = "the firewall" if item.generation is None else f"generation {item.generation}"
        yield f"{format_timestamp(item.time)}  {number} {item.outcome}; lost was: {item.lost}"


def _data(item: HistoryEntry, events: Sequence[Restore]) -> dict[str, Any]:
    made = item.generation
    lost = [each for each in events if each.generation == item.number]
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
        "losses": [
            {"time": format_timestamp(each.time), "lost": each.lost, "outcome": each.outcome}
            for each in lost
        ],
    }
