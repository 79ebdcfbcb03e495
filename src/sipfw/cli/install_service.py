"""`sipfw install-service`: have the firewall back after a restart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark, say
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.host.files import Layout


@click.command("install-service")
@root_option
@click.option(
    "--enable/--no-enable",
    default=True,
    show_default=True,
    help="Enable the units, so that systemd starts them at boot.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["systemd", "sysv", "sysv-sets"]),
    default="systemd",
    show_default=True,
    help="Print an init script instead (sysv, sysv-sets) for a host without systemd.",
)
def command(*, root: Path, enable: bool, form: str) -> int:
    """Restore the last confirmed firewall at boot, before the network is up.

    Writes sipfw.service, a timer that follows host names and block lists every five minutes, one
    that looks every 30 seconds whether the firewall is still there, and sipfw-sets.service, which
    makes saved rules of other programs loadable. `sipfw remove` takes all of it away again.
    """
    from sipfw.deploy.service import ENABLED, doubts, install, systemd, this_command
    from sipfw.host.files import Layout
    from sipfw.host.privilege import require_root
    from sipfw.upkeep.saved_state import warnings

    layout, program = Layout(root), this_command(sys.argv[0])
    if form != "systemd":
        _print_init_script(layout, program, sets=form == "sysv-sets")
        return Exit.CLEAN
    require_root()
    remark(doubts(program))
    written = install(layout, program, systemd(layout), enable=enable)
    did(changed=bool(written), written=[str(path) for path in written])
    for path in written:
        complain(f"written: {path}")
    if not written:
        complain("the units were there already, as they should be")
    if enable:
        complain("enabled: the last confirmed firewall is restored at boot")
    else:
        complain(f"not enabled; do it with: systemctl enable {' '.join(ENABLED)}")
    remark(warnings(layout))
    return Exit.CLEAN


def _print_init_script(layout: Layout, program: tuple[str, ...], *, sets: bool) -> None:
    from sipfw.deploy.service import init_script

    name = "sipfw-sets" if sets else "sipfw"
    say(init_script(layout, program, sets=sets).rstrip("\n"))
    complain(f"save it as /etc/init.d/{name}, mode 755, and run: update-rc.d {name} defaults")
    if not sets:
        words = " ".join(program)
        complain("the same with --format sysv-sets, which makes saved rules of others loadable")
        complain(f"from cron, every minute: {words} keep; and every five: {words} refresh")
