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

    from sipfw.deploy.differences import Difference
    from sipfw.deploy.history import HistoryEntry
    from sipfw.host.files import Layout
    from sipfw.upkeep.restores import Restore

# More losses than this are counted, not listed.
_EVENTS = 10
_NUMBER = click.IntRange(1, 999_999_999)
_HEAD = ("", "generation", "when", "who", "backend", "state", "policy", "changed")
# A difference of more lines than this is cut on a screen, and whole as JSON.
_LINES = 200


@click.command("history")
@root_option
@click.argument("other", metavar="[M]", type=_NUMBER, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--diff",
    "shown",
    type=_NUMBER,
    metavar="N",
    help="Show what generation N changed since M; by default since the one before it.",
)
@click.option("--keep", "kept", type=_NUMBER, metavar="N", help="Never prune generation N.")
@click.option("--release", "released", type=_NUMBER, metavar="N", help="Undo --keep.")
def command(
    *,
    root: Path,
    other: int | None,
    as_json: bool,
    shown: int | None,
    kept: int | None,
    released: int | None,
) -> int:
    """List the generations, newest last; * marks the one that is live.

    Each says what it changed. Below them, what another program took away and sipfw keep put back.
    The 20 newest are kept, and 20 that differ; the older ones go, apart from those of --keep.
    """
    from sipfw.deploy.history import keep_generation, release_generation
    from sipfw.host.files import Layout

    if sum(item is not None for item in (shown, kept, released)) > 1:
        raise click.UsageError("--diff, --keep and --release do not go together")
    if other is not None and shown is None:
        raise click.UsageError("a second generation goes with --diff; write --diff N M")
    layout = Layout(root)
    if kept is not None:
        keep_generation(layout, kept)
        complain(f"generation {kept} is kept until sipfw history --release {kept}")
    elif released is not None:
        found = release_generation(layout, released)
        complain(f"generation {released} {'goes with its age again' if found else 'was not kept'}")
    elif shown is not None:
        _show(layout, shown, other, as_json=as_json)
    else:
        _list(layout, as_json=as_json)
    return Exit.CLEAN


def _show(layout: Layout, number: int, other: int | None, *, as_json: bool) -> None:
    from sipfw.deploy.history import difference_of

    before, found = difference_of(layout, number, other)
    if as_json:
        changes = [
            {"kind": item.kind, "what": item.what, "before": item.before, "after": item.after}
            for item in found
        ]
        say_json({"generation": number, "since": before, "changes": changes})
        return
    since = "no firewall" if before is None else f"generation {before}"
    complain(f"generation {number} against {since}:")
    say_lines(difference_lines(found, _LINES))


def difference_lines(found: Sequence[Difference], most: int) -> Iterator[str]:
    """Write the first lines of a difference; more are counted."""
    if not found:
        yield "nothing differs"
    for item in found[:most]:
        yield str(item)
    if len(found) > most:
        yield f"and {len(found) - most:,} more"


def _list(layout: Layout, *, as_json: bool) -> None:
    from sipfw.deploy.history import history
    from sipfw.upkeep.restores import read_restores

    entries = history(layout)
    restores = read_restores(layout) if entries else None
    events = () if restores is None else restores.events
    if as_json:
        say_json([_data(item, events) for item in entries])
    elif entries:
        say_lines(table([_HEAD, *(_row(item) for item in entries)], right={1}))
        say_lines(_told(events))
    else:
        complain("nothing was applied yet")


def _row(item: HistoryEntry) -> tuple[str, ...]:
    made = item.generation
    star, number = "*" if item.live else "", str(item.number)
    if made is None:
        return star, number, "-", "-", "-", item.state, "", ""
    when = format_stored_timestamp(made.time)
    who = made.who if made.address is None else f"{made.who} from {made.address}"
    state = f"{item.state}, kept" if made.pinned else item.state
    return star, number, when, who, made.backend, state, made.source, item.changed


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
        "from": made and made.address,
        "backend": made and made.backend,
        "ipset": made and made.ipset,
        "source": made and made.source,
        "before": made and made.before,
        "digest": made and made.digest,
        "confirmed": made and made.confirmed,
        "kept": made and made.pinned,
        "changed": item.changed,
        "losses": [
            {"time": format_timestamp(each.time), "lost": each.lost, "outcome": each.outcome}
            for each in lost
        ],
    }
