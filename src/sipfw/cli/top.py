"""`sipfw top`: who is being dropped, by which layer and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.numbers import count_text
from sipfw.cli.options import Seconds, root_option
from sipfw.cli.output import complain, say_json, say_lines, table
from sipfw.errors import Exit
from sipfw.ruleset.model import Layer
from sipfw.words import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sipfw.monitor.top.source import DroppedSource, Top

FORMAT = 1


@click.command("top")
@root_option
@click.option(
    "--seconds",
    type=Seconds(0.0, 60.0),
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="Look at arriving packets for this long.",
)
@click.option(
    "-n",
    "--top",
    "most",
    type=click.IntRange(1, 100_000),
    metavar="N",
    default=20,
    show_default=True,
    help="Show this many sources.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=click.Choice([item.value for item in Layer]),
    help="Show only what this layer drops. Repeatable.",
)
@click.option("--names", is_flag=True, help="Query DNS for their names; takes some seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *, root: Path, seconds: float, most: int, layers: tuple[str, ...], names: bool, as_json: bool
) -> int:
    """Show the sources that are dropped now: layer, reason, packets, first and last seen.

    Looks into the sets and the limits and, for some seconds, at the SIP packets that arrive; where
    the policy logs to NFLOG, at that as well. Trusted peers are there when packets of theirs were
    dropped within 15 minutes, to whatever port. No rule is touched. Exit code 4: no firewall of
    sipfw is in force.
    """
    from sipfw.deploy.none_active import HINT, NOTHING
    from sipfw.host.files import Layout
    from sipfw.monitor.top.top import top

    found = top(Layout(root), seconds=seconds)
    if found is None:
        complain(f"{NOTHING}; {HINT}")
        return Exit.BACKEND
    sources = [item for item in found.sources if not layers or item.layer in layers]
    shown = sources[:most]
    called: Mapping[str, str] = {}
    if names:
        from sipfw.monitor.reverse_names import reverse_names

        called = reverse_names([item.network for item in shown])
    if as_json:
        say_json(_data(found, shown, called))
    else:
        say_lines(_lines(shown, called, more=len(sources) - len(shown)))
        for note in found.notes:
            complain(f"note: {note}")
    return Exit.CLEAN


def _lines(shown: Sequence[DroppedSource], called: Mapping[str, str], *, more: int) -> list[str]:
    if not shown:
        return ["nobody is being dropped"]
    head = ["source", "layer", "packets", "last seen", "first seen", "lasts", "reason"]
    rows = [head]
    now = time.time()
    for item in shown:
        name = called.get(str(item.network))
        rows.append(
            [
                _place(item) if name is None else f"{_place(item)} ({name})",
                item.layer,
                "-" if item.packets is None else count_text(item.packets),
                _ago(item.last, now),
                _ago(item.first, now),
                "-" if item.left is None else format_duration(item.left),
                f"{item.rule}: {item.reason}",
            ]
        )
    lines = table(rows, right=(2,))
    return [*lines, f"and {more:,} more; see --top"] if more > 0 else lines


def _place(item: DroppedSource) -> str:
    network = item.network
    return str(network.network_address if network.num_addresses == 1 else network)


def _ago(moment: float | None, now: float) -> str:
    if moment is None:
        return "-"
    return "now" if now - moment < 1 else f"{format_duration(now - moment)} ago"


def _data(found: Top, shown: Sequence[DroppedSource], called: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "looked_seconds": round(found.looked, 3),
        "sources": [
            {
                "source": _place(item),
                "name": called.get(str(item.network)),
                "layer": item.layer,
                "rule": item.rule,
                "reason": item.reason,
                "packets": item.packets,
                "first": None if item.first is None else round(item.first, 3),
                "last": None if item.last is None else round(item.last, 3),
                "left_seconds": item.left,
            }
            for item in shown
        ],
        "notes": list(found.notes),
    }
