"""`sipfw keep`: what a timer runs to put back what another program took away."""

from __future__ import annotations

import syslog
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import did
from sipfw.cli.options import root_option
from sipfw.cli.output import complain
from sipfw.cli.remember import remember
from sipfw.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.upkeep.keep import KeepResult


@click.command("keep")
@root_option
def command(*, root: Path) -> int:
    """Look whether the applied firewall is still in force, and restore it where it is not.

    The timer of sipfw install-service does so every 30 seconds, so what `nft flush ruleset` or
    `iptables -F` took away is back within 35 seconds; sipfw history names each time. At most 5
    restores in 10 minutes: after that somebody takes it away on purpose, and sipfw says so. Nothing
    is done while an apply waits to be confirmed, or after sipfw remove. Who is banned is put down
    for sipfw events. Exit code 1 means that the firewall is not whole.
    """
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.upkeep.keep import KeepState, keep

    layout = Layout(root)
    found = keep(layout, Options())
    did(changed=found.state is KeepState.RESTORED, state=found.state.name.lower())
    if found.state is not KeepState.BUSY:
        remember(layout)
    match found.state:
        case KeepState.WHOLE | KeepState.NOTHING | KeepState.BUSY:
            complain(f"nothing to do: {found.state}")
            return Exit.CLEAN
        case KeepState.RESTORED:
            _tell(found, f"the firewall was not whole and is restored: {found.summary}")
            _follow(layout)
            return Exit.DIFFERENT if found.detail else Exit.CLEAN
        case KeepState.HELD:
            _tell(found, f"the firewall is not whole and is not restored: {found.detail}")
        case KeepState.FAILED:
            _tell(found, f"the firewall is not whole and cannot be restored: {found.detail}")
        case KeepState.LEFT:
            _tell(found, f"the firewall is not whole: {found.summary}; {found.detail}")
    return Exit.DIFFERENT


def _tell(found: KeepResult, text: str) -> None:
    """Say it, and where nobody has been told, into the system's log as well."""
    complain(text if not found.detail or found.detail in text else f"{text}; {found.detail}")
    if found.new:
        syslog.openlog("sipfw", syslog.LOG_PID, syslog.LOG_DAEMON)
        plain = "".join(c if c.isprintable() else "?" for c in text)
        syslog.syslog(syslog.LOG_WARNING, plain)


def _follow(layout: Layout) -> None:
    """Give the sets what host names and block lists were last; the rules are in force already."""
    from sipfw.errors import SipfwError
    from sipfw.kernel.backend import Options
    from sipfw.upkeep.refresh import refresh

    try:
        refresh(layout, Options(), cached=True)
    except SipfwError as error:
        complain(f"host names and block lists are as at the apply: {error}")
