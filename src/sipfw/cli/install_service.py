"""`sipfw install-service`: have the firewall back after a restart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, remark, say
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


@click.command("install-service")
@root_option
@click.option(
    "--enable/--no-enable", default=True, show_default=True, help="Have systemd start it at boot."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["systemd", "sysv"]),
    default="systemd",
    show_default=True,
    help="sysv prints an init script for a host without systemd and changes nothing.",
)
def command(*, root: Path, enable: bool, form: str) -> int:
    """Restore the last confirmed firewall at boot, before the network is up.

    Writes sipfw.service, and a timer that follows host names and block lists every five minutes.
    `sipfw remove` takes all of it away again.
    """
    from sipfw.deploy.files import Layout
    from sipfw.deploy.privilege import require_root
    from sipfw.deploy.service import doubts, init_script, install, systemd, this_command

    layout, program = Layout(root), this_command(sys.argv[0])
    if form == "sysv":
        say(init_script(layout, program).rstrip("\n"))
        complain("save it as /etc/init.d/sipfw, mode 755, and run: update-rc.d sipfw defaults")
        complain(f"and every five minutes, from cron: {' '.join(program)} refresh")
        return Exit.CLEAN
    require_root()
    remark(doubts(program))
    written = install(layout, program, systemd(layout), enable=enable)
    for path in written:
        complain(f"written: {path}")
    if not written:
        complain("the units were there already, as they should be")
    if enable:
        complain("enabled: the last confirmed firewall is restored at boot")
    else:
        complain("not enabled; do it with: systemctl enable sipfw.service sipfw-refresh.timer")
    return Exit.CLEAN
