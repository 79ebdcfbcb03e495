"""`sipfw panic`: nobody but trusted peers and admins, at once, and back again exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sipfw.cli.ask import agreed_to_lose
from sipfw.cli.machine import did
from sipfw.cli.manual import option_value
from sipfw.cli.options import root_option
from sipfw.cli.outcome import report
from sipfw.cli.output import complain
from sipfw.errors import Exit
from sipfw.words import format_duration, format_timestamp, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.deploy.apply import ApplyOutcome
    from sipfw.manual.panic import Panic

_LONGEST = 86_400


@click.group("panic")
def command() -> None:
    """Let nobody in but trusted peers and admins, while an attack lasts."""


@command.command("on", short_help="Begin; with --for it ends by itself.")
@click.option("--for", "length", metavar="TIME", help="End by itself after so long, such as 30m.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@click.option("--force", is_flag=True, help="Go on even if it locks somebody out.")
@root_option
def on(*, length: str | None, yes: bool, force: bool, root: Path) -> int:
    """Drop all SIP but that of trusted peers, and the host's ports that are open to everybody.

    Calls of trusted peers go on, and whoever is logged in by ssh stays in. What phones have
    learned, bans and counters are kept for the end. With --for it ends by itself, even if the host
    restarts; until then `sipfw confirm` makes it last and `sipfw panic off` ends it. At a terminal
    it asks before; exit code 1 means that you said no.
    """
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.manual.panic import foresee, panic_on

    seconds = None if length is None else option_value("--for", length, _seconds)
    layout = Layout(root)
    found = foresee(layout)
    for loss in _losses(found):
        complain(loss)
    if not agreed_to_lose((), "begin the panic?", yes=yes):
        did(changed=False)
        return Exit.DIFFERENT
    _say(panic_on(layout, Options(force=force), seconds))
    return Exit.CLEAN


@command.command("off", short_help="Bring back what was before.")
@root_option
def off(*, root: Path) -> int:
    """Bring back the firewall from before the panic, with everybody it had learned."""
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.manual.panic import panic_off

    outcome = panic_off(Layout(root), Options())
    if outcome is None:
        did(changed=False)
        complain("no panic is on; nothing was changed")
        return Exit.CLEAN
    report("the panic is over", outcome)
    return Exit.CLEAN


def _seconds(text: str) -> int:
    from sipfw.policy.quantities import parse_duration, shown

    seconds = parse_duration(text)
    if seconds > _LONGEST:
        raise ValueError(f"{shown(text)} is too long to end by itself; write at most 24h")
    return seconds


def _losses(found: Panic) -> Iterator[str]:
    peers = pluralize(found.peers, "trusted peer")
    yield f"only {peers} can call then: phones, and trunks that are no peers, are cut off"
    if found.host:
        admins = pluralize(found.admins, "admin network")
        yield f"ports of this host that are open to everybody are open to {admins} alone"
    else:
        yield "the rest of this host stays as open as it is, since nothing guards it now"


def _say(outcome: ApplyOutcome) -> None:
    import time

    report("the panic is on", outcome)
    left = None if outcome.waiting is None else outcome.waiting.seconds_left()
    if left is None:
        complain("end it with: sipfw panic off")
        return
    until = format_timestamp(time.time() + left)
    complain(f"it ends by itself in {format_duration(left)}, at {until}; before: sipfw panic off")
