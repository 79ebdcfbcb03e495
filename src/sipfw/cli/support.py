"""`sipfw support`: one file for whoever helps from afar."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, wait_for
from sipfw.errors import Exit
from sipfw.words import pluralize

# All of them only look.
_OWN = {
    "verify": ("verify", "--rules"),
    "verify-json": ("verify", "--json"),
    "doctor": ("doctor",),
    "diff": ("diff",),
    "history": ("history",),
    "bans": ("bans",),
    "trusts": ("trust", "--list"),
    "feeds": ("feeds",),
    "top": ("top", "--seconds", "2"),
    "events": ("events",),
    "saved": ("saved",),
}


@click.command("support")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write this file, which must not exist. Default: sipfw-support-TIME.tar.gz here.",
)
@click.option(
    "--anonymize",
    is_flag=True,
    help="Replace addresses, names of peers and host names; the same one alike everywhere.",
)
@root_option
def command(*, output: Path | None, anonymize: bool, root: Path) -> int:
    """Write what a ticket needs into one file for root alone; nothing is sent anywhere.

    Policy, rules, sets, doctor, verify, history, events, versions and settings, each at most 2 MB.
    Values that look like secrets are replaced. Look at it before you send it.
    """
    from sipfw.host.child import child_command
    from sipfw.host.files import Layout
    from sipfw.host.runner import SubprocessRunner
    from sipfw.monitor.support.bundle import cleaned, names_of, sections, write_bundle

    layout = Layout(root)
    moment = time.strftime("%Y%m%d-%H%M%S")
    target = output or Path(f"sipfw-support-{moment}.tar.gz")
    own = [
        (name, child_command("sipfw.cli", "main", words[0], "--root", str(root), *words[1:]))
        for name, words in _OWN.items()
    ]
    wait_for("asking this host; that takes half a minute")
    found = cleaned(
        sections(layout, SubprocessRunner(), own), names_of(layout) if anonymize else None
    )
    write_bundle(target, found)
    for item in found:
        if item.fault is not None:
            complain(f"{item.name}: {item.fault}")
    did(changed=True, file=str(target), sections=[item.name for item in found])
    complain(f"written: {target}, {pluralize(len(found), 'section')}, for root only")
    hidden = "" if anonymize else "; --anonymize replaces addresses and names"
    complain(f"look at it before you send it: tar xzf {target}{hidden}")
    return Exit.CLEAN
