"""`sipfw ban`: ban addresses by hand, for a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.manual import (
    complain_all,
    option_value,
    read_input,
    read_named,
    report,
    stop_at,
    timed_text,
)
from sipfw.cli.options import root_option
from sipfw.cli.output import complain
from sipfw.cli.remember import remember
from sipfw.errors import Exit

if TYPE_CHECKING:
    from sipfw.manual.bans import BanRequest
    from sipfw.manual.change import Obeyed


@click.command("ban")
@click.argument("addresses", metavar="[ADDRESS|NETWORK]...", nargs=-1)
@click.option(
    "--for",
    "length",
    metavar="TIME",
    help="Ban for this long, such as 2h; at most 49d, on iptables 24d. Default: bans.duration.",
)
@click.option(
    "--reason", default="", metavar="TEXT", help="Record this reason, at most 80 characters."
)
@click.option(
    "--import",
    "source",
    type=click.Path(path_type=Path, allow_dash=True, readable=False),
    metavar="FILE",
    help="Ban what this file lists, text or JSON as `sipfw bans --export` writes it; - is stdin.",
)
@root_option
def command(
    *,
    addresses: tuple[str, ...],
    length: str | None,
    reason: str,
    source: Path | None,
    root: Path,
) -> int:
    """Drop all SIP from these addresses for a time, over UDP, TCP and TLS.

    In IPv6 a ban is about the whole prefix of `limits.ipv6_prefix`, usually a /64. A network is
    banned source by source, at most 4,096. With `bans.growth` each ban lasts longer than the last.

    It is a wall: unlike a ban by the packets, a login does not end it. All are banned, or none.
    Refused for trusted peers, admin networks, this host and whoever is logged in by ssh. The first
    ban by hand makes a new generation of the same policy, with a rule for it.
    """
    from sipfw.deploy.manual_list import checked_reason
    from sipfw.host.files import Layout
    from sipfw.manual.bans import BanRequest, ban
    from sipfw.policy.quantities import parse_duration

    if bool(addresses) == (source is not None):
        raise click.UsageError("name addresses, or a list with --import")
    seconds = None if length is None else option_value("--for", length, parse_duration)
    why = option_value("--reason", reason, checked_reason)
    if source is None:
        wishes = [BanRequest(address, why) for address in read_named(addresses)]
    else:
        wishes = _imported(source, why)
    if not wishes:
        did(changed=False)
        complain("the list bans nobody; nothing was changed")
        return Exit.CLEAN
    layout = Layout(root)
    done = ban(layout, wishes, seconds)
    report(done)
    _say(done, wishes)
    remember(layout)
    return Exit.CLEAN


def _imported(source: Path, reason: str) -> list[BanRequest]:
    from sipfw.manual.text import LONGEST_FILE, read_list

    found = read_list(read_input(source, LONGEST_FILE), reason, time.time())
    if found.expired:
        complain(f"left out, because their end has come: {found.expired:,}")
    name = "standard input" if str(source) == "-" else source
    stop_at([f"{name}: {fault}" for fault in found.faults])
    return list(found.wishes)


def _say(done: Obeyed, wishes: list[BanRequest]) -> None:
    """Print a line for each ban, and one for each network."""
    from ipaddress import ip_network

    from sipfw.deploy.manual_list import Book
    from sipfw.ruleset.source import source_text

    networks = [ip_network(wish.address) for wish in wishes]
    wide = [item for item in networks if item.num_addresses > 1]
    lines: dict[str, None] = {}
    for item in done.order.books[Book.BANS].values():
        if item is not None:
            own = source_text(item.address, done.prefix)
            source = next((str(net) for net in wide if item.address in net), own)
            lines[f"banned: {timed_text(source, item.until - item.since, item.until)}"] = None
    did(changed=bool(lines), banned=[str(wish.address) for wish in wishes])
    complain_all(list(lines))
