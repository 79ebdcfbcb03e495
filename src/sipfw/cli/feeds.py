"""`sipfw feeds`: the block lists of the live firewall."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say_json, say_lines, table
from sipfw.errors import Exit
from sipfw.words import format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.monitor.feed_report import FeedReport

_HEAD = ("list", "IPv4", "IPv6", "last good", "last try", "hits", "left out", "state")


@click.command("feeds")
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, root: Path, as_json: bool) -> int:
    """Show each block list: its entries, how old it is, what went wrong, and whom it dropped.

    Asks no source and changes nothing; `sipfw refresh` does. Hits are packets since the apply.
    """
    from sipfw.deploy.none_active import HINT, NOTHING
    from sipfw.host.files import Layout
    from sipfw.monitor.feed_report import feed_reports

    found = feed_reports(Layout(root))
    if found is None:
        complain(f"{NOTHING}; {HINT}")
        return Exit.BACKEND
    if as_json:
        say_json([asdict(item) for item in found])
    elif found:
        say_lines(table([_HEAD, *map(_row, found)], right={1, 2, 5}))
    else:
        complain("the live policy has no block lists; see docs/feeds.md")
    return Exit.CLEAN


def _row(item: FeedReport) -> tuple[str, ...]:
    return (
        item.name,
        f"{item.ip:,}",
        f"{item.ip6:,}",
        _ago(item.age),
        _ago(item.tried),
        "-" if item.hits is None else f"{item.hits:,}",
        ", ".join(f"{left.count:,} {left.reason}" for left in item.left_out) or "-",
        _state(item),
    )


def _state(item: FeedReport) -> str:
    old = "expired" if item.expired else "in force"
    said = "no copy yet" if item.age is None else old
    return said if item.error is None else f"{said}; the last try failed: {item.error}"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{format_duration(seconds)} ago" if seconds >= 0 else "unknown"
