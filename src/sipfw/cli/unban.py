"""`sipfw unban`: free addresses from every ban."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.manual import complain_all, read_sources, report
from sipfw.cli.options import root_option
from sipfw.cli.output import complain
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("unban")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option("--all", "everybody", is_flag=True, help="Unban all addresses.")
@root_option
def command(*, addresses: tuple[str, ...], everybody: bool, root: Path) -> int:
    """Free these addresses, whether a ban came by hand or by packets, and forget their failures.

    In IPv6 that is the whole prefix of `limits.ipv6_prefix`. Who guesses on, or floods on, is
    banned again by the rules.
    """
    from sipfw.host.files import Layout
    from sipfw.manual.bans import unban

    if bool(addresses) == everybody:
        raise click.UsageError("name addresses, or say --all")
    found = read_sources(addresses)
    done = unban(Layout(root), None if everybody else found)
    report(done.done)
    complain_all([f"not banned: {address}" for address in done.strangers])
    complain_all([f"free again: {address}" for address in done.freed])
    if everybody and not done.freed:
        complain("nobody is banned")
    return Exit.CLEAN
