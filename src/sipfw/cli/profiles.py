"""`sipfw profiles`: what is shipped."""

from __future__ import annotations

import click

from sipfw.cli.machine import did
from sipfw.cli.output import say, say_lines, table
from sipfw.errors import Exit


@click.command("profiles")
@click.argument("name", required=False)
def command(name: str | None) -> int:
    """List the shipped profiles and switches, or show one by NAME."""
    from sipfw.policy.load import headline, read_shipped, shipped_profiles, shipped_switches

    shipped = {"profiles": shipped_profiles(), "switches": shipped_switches()}
    if name is None:
        found = {kind: {n: headline(n) for n in names} for kind, names in shipped.items()}
        did(changed=None, **found)
    if name is not None:
        say(read_shipped(name).rstrip("\n"))
        return Exit.CLEAN
    for title, names in shipped.items():
        say(f"{title.capitalize()}:")
        say_lines(table([(f"  {item}", headline(item)) for item in names], head=False))
    return Exit.CLEAN
