"""`sipfw top`: who is being dropped, by which layer and why."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.moments import iso
from sipfw.cli.numbers import count_text, rate_text
from sipfw.cli.options import Seconds, root_option
from sipfw.cli.output import complain, say, say_json, say_lines, table, wait_for
from sipfw.cli.remember import remember
from sipfw.errors import BackendError, Exit
from sipfw.ruleset.model import Layer
from sipfw.words import format_duration, format_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.monitor.top.source import DroppedSource, Top

FORMAT = 2
_HEAD = ("source", "layer", "packets", "per s", "last seen", "first seen", "lasts", "reason")


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
@click.option(
    "--watch",
    "interval",
    type=Seconds(0.5, 3600.0),
    is_flag=False,
    flag_value=5.0,
    metavar="[SECONDS]",
    help="Look again and again, every 5 seconds by default, until you press q or Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    root: Path,
    seconds: float,
    most: int,
    layers: tuple[str, ...],
    names: bool,
    interval: float | None,
    as_json: bool,
) -> int:
    """Show the sources that are dropped now: layer, reason, packets, first and last seen.

    Looks into the sets and the limits and, for some seconds, at the SIP packets that arrive; where
    the policy logs to NFLOG, at that as well. Packets are those that came from a source in these
    seconds; of one that is above a limit some got through. Trusted peers are there when packets of
    theirs were dropped within 15 minutes, to whatever port. No rule is touched; who was seen is
    kept for `sipfw events`. Exit code 4: no firewall of sipfw is in force.
    """
    from sipfw.host.files import Layout

    layout, view = Layout(root), _View(most, layers, names=names)
    if interval is not None:
        return _watch(layout, view, min(seconds, interval), interval, as_json=as_json)
    if seconds:
        wait_for(f"sampling {seconds:g} s")
    found = _looked(layout, seconds)
    _show(found, view, as_json=as_json)
    return Exit.CLEAN


@dataclass(frozen=True, slots=True)
class _View:
    """What of it is shown."""

    most: int
    layers: tuple[str, ...]
    names: bool

    def chosen(self, found: Top) -> list[DroppedSource]:
        return [item for item in found.sources if not self.layers or item.layer in self.layers]


def _looked(layout: Layout, seconds: float) -> Top:
    """Look, and remember who was seen. Raises BackendError."""
    from sipfw.deploy.none_active import HINT, NOTHING
    from sipfw.monitor.top.top import top

    found = top(layout, seconds=seconds)
    if found is None:
        raise BackendError(NOTHING, hint=HINT)
    remember(layout, found)
    return found


def _show(found: Top, view: _View, *, as_json: bool) -> None:
    sources = view.chosen(found)
    shown = sources[: view.most]
    called = _names(shown) if view.names else {}
    if as_json:
        say_json(_data(found, shown, called))
        return
    say_lines(_lines(shown, called, more=len(sources) - len(shown)))
    for note in found.notes:
        complain(f"note: {note}")


def _names(shown: Sequence[DroppedSource]) -> Mapping[str, str]:
    from sipfw.monitor.reverse_names import reverse_names

    return reverse_names([item.network for item in shown])


def _watch(layout: Layout, view: _View, seconds: float, interval: float, *, as_json: bool) -> int:
    """Look until the operator ends it: on a terminal one screen, else block after block."""
    from sipfw.cli.watch import has_screen, on_screen

    def screen() -> list[str]:
        found = _looked(layout, seconds)
        sources = view.chosen(found)
        shown = sources[: view.most]
        lines = _lines(shown, _names(shown) if view.names else {}, more=len(sources) - len(shown))
        return [*lines, *(f"note: {note}" for note in found.notes)]

    try:
        if has_screen() and not as_json:
            return on_screen("sipfw top", screen, interval)
        while True:
            started = time.monotonic()
            found = _looked(layout, seconds)
            if not as_json:
                say(format_timestamp(time.time()))
            _show(found, view, as_json=as_json)
            sys.stdout.flush()
            time.sleep(max(0.0, started + interval - time.monotonic()))
    except KeyboardInterrupt:
        return Exit.CLEAN


def _lines(shown: Sequence[DroppedSource], called: Mapping[str, str], *, more: int) -> list[str]:
    if not shown:
        return ["nobody is being dropped"]
    rows = [list(_HEAD)]
    now = time.time()
    for item in shown:
        name = called.get(str(item.network))
        rows.append(
            [
                _place(item) if name is None else f"{_place(item)} ({name})",
                item.layer,
                "-" if item.packets is None else count_text(item.packets),
                rate_text(item.rate),
                _ago(item.last, now),
                _ago(item.first, now),
                "-" if item.left is None else format_duration(item.left),
                f"{item.rule}: {item.reason}{'; has logged in' if item.known else ''}",
            ]
        )
    lines = table(rows, right=(2, 3))
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
                "packets_per_second": None if item.rate is None else round(item.rate, 1),
                "first": None if item.first is None else iso(item.first),
                "last": None if item.last is None else iso(item.last),
                "left_seconds": item.left,
                "known": item.known,
            }
            for item in shown
        ],
        "notes": list(found.notes),
    }
