"""`sipfw events`: who was dropped or banned, when, why and until when."""

from __future__ import annotations

import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.moments import iso, moment_of
from sipfw.cli.numbers import count_text
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say_json, say_lines, table
from sipfw.cli.remember import remember
from sipfw.errors import Exit
from sipfw.words import format_duration, format_timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.monitor.events.event import Event
    from sipfw.ruleset.addresses import IpNetwork

FORMAT = 1
_HEAD = ("since", "source", "what", "for", "packets", "why")


@click.command("events")
@click.argument("address", metavar="[ADDRESS|NETWORK]", required=False)
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="WHEN",
    help="Show what went on after this: a duration ago such as 12h or 7d, or a timestamp.",
)
@click.option("--until", metavar="WHEN", help="Show what began before this. Default: now.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Show the N latest.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@root_option
def command(
    *, address: str | None, since: str, until: str | None, limit: int, as_json: bool, root: Path
) -> int:
    """Show who was dropped or banned, the latest first: when, for how long, by what and why.

    Bans, and logins that are dropped, are seen by a look every 30 seconds (`sipfw keep`, which
    install-service starts) and by most commands; who was dropped without a ban by `sipfw top` and
    `sipfw report` while they look. What began and ended between two looks is not there. Packets are
    those that these looks have seen. Kept for 31 days.
    """
    from sipfw.host.files import Layout
    from sipfw.host.privilege import require_root
    from sipfw.monitor.events.file import EventFile
    from sipfw.monitor.events.store import between

    require_root()
    now = time.time()
    start = moment_of(since, now)
    end = now if until is None else moment_of(until, now, "--until")
    if end < start:
        raise click.BadParameter("is before --since", param_hint="--until")
    network = None if address is None else _network(address)
    layout = Layout(root)
    remember(layout)
    # A look takes a while, and what it has just seen belongs to the answer.
    end = time.time() if until is None else end
    file = EventFile(layout, complain)
    found, more = file.ask(lambda base: between(base, start, end, network, limit)) or ([], 0)
    if as_json:
        say_json(_data(found, start, end, more))
    elif found:
        say_lines(_lines(found, time.time()))
        if more:
            complain(f"and {more:,} earlier; see --limit")
    else:
        whom = "nobody" if address is None else f"nothing of {address}"
        say_lines([f"{whom} was dropped or banned since {format_timestamp(start)}, as far as seen"])
        complain(
            "seen are bans, by a look every 30 s of sipfw keep (install-service) or by a command, "
            "and dropped packets while sipfw top or report looks"
        )
    return Exit.CLEAN


def _network(text: str) -> IpNetwork:
    """Raises click.BadParameter."""
    from sipfw.manual.sources import parse_named

    try:
        return ip_network(parse_named(text))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from error


def _lines(found: list[Event], now: float) -> list[str]:
    return table([_HEAD, *(_row(item, now) for item in found)], right=(4,))


def _row(item: Event, now: float) -> tuple[str, ...]:
    return (
        format_timestamp(item.first),
        item.subject,
        item.kind,
        _length(item, now),
        count_text(item.packets) if item.packets else "-",
        _why(item),
    )


def _length(item: Event, now: float) -> str:
    """Say for how long it went on, or how much is left."""
    if item.until is not None and item.until > now:
        return f"{format_duration(item.until - now)} left"
    return format_duration(item.ends - item.first)


def line_of(item: Event) -> str:
    """Say an event in a line."""
    length = _length(item, time.time())
    return f"{item.kind} {format_timestamp(item.first)}, for {length}, {_why(item)}"


def _why(item: Event) -> str:
    """Say what led to it, who ordered it, and whether the switch knows the source."""
    parts = [f"{item.layer}: {item.reason}" if item.reason else item.layer]
    if item.who:
        parts.append(f"by {item.who}")
    if item.freed:
        parts.append(f"freed by {item.freed}")
    if item.known:
        parts.append("has logged in")
    return "; ".join(parts)


def _data(found: list[Event], since: float, until: float, more: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "since": iso(since),
        "until": iso(until),
        "more": more,
        "events": [
            {
                "source": None if item.source is None else item.subject,
                "sources": item.sources,
                "kind": item.kind,
                "layer": item.layer,
                "rule": item.rule,
                "reason": item.reason,
                "who": item.who,
                "freed_by": item.freed,
                "first": iso(item.first),
                "last": iso(item.last),
                "until": None if item.until is None else iso(item.until),
                "packets": item.packets,
                "known": item.known,
            }
            for item in found
        ],
    }
