"""`sipfw unban`: free addresses from every ban."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.ask import agreed_to_lose, at_terminal
from sipfw.cli.machine import did
from sipfw.cli.manual import complain_all, read_named, report
from sipfw.cli.options import root_option
from sipfw.cli.output import complain
from sipfw.cli.remember import remember
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.host.files import Layout


@click.command("unban")
@click.argument("addresses", metavar="[ADDRESS|NETWORK]...", nargs=-1)
@click.option("--all", "everybody", is_flag=True, help="Unban all addresses.")
@click.option("--yes", is_flag=True, help="With --all: do not ask; for scripts.")
@root_option
def command(*, addresses: tuple[str, ...], everybody: bool, yes: bool, root: Path) -> int:
    """Free these addresses, whether a ban came by hand or by packets, and forget their failures.

    In IPv6 that is the whole prefix of `limits.ipv6_prefix`. Who guesses on, or floods on, is
    banned again by the rules. At a terminal --all asks before; exit code 1 means that you said no.
    """
    from sipfw.host.files import Layout
    from sipfw.host.privilege import who
    from sipfw.manual.bans import unban

    if bool(addresses) == everybody:
        raise click.UsageError("name addresses, or say --all")
    found = read_named(addresses)
    if everybody and at_terminal() and not yes and not _agreed(Layout(root)):
        return Exit.DIFFERENT
    layout = Layout(root)
    # Who was banned by packets since the last look is to be known, too.
    remember(layout)
    done = unban(layout, None if everybody else found)
    report(done.done)
    complain_all([f"not banned: {address}" for address in done.strangers])
    did(changed=bool(done.freed), freed=[str(address) for address in done.freed])
    complain_all([f"free again: {address}" for address in done.freed])
    if everybody and not done.freed:
        complain("nobody is banned")
    remember(layout, freed=who())
    return Exit.CLEAN


def _agreed(layout: Layout) -> bool:
    from sipfw.manual.bans import MANUAL, list_bans
    from sipfw.words import pluralize

    banned = list_bans(layout).found
    by_hand = [ban for ban in banned if ban.layer == MANUAL]
    losses = [f"{pluralize(len(banned), 'source')} may call again, guess again and flood again"]
    if by_hand:
        count = pluralize(len(by_hand), "ban by hand", "bans by hand")
        losses.append(f"{count} with reason and end would be lost; keep: sipfw bans --export FILE")
    return not banned or agreed_to_lose(losses, "free all of them?", yes=False)
