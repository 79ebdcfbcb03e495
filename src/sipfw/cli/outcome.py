"""What `apply`, `rollback` and `restore` say about a change, and the wait for a confirmation."""

from __future__ import annotations

import select
import sys
import time
from typing import TYPE_CHECKING

from sipfw.cli.machine import did
from sipfw.cli.output import complain, remark
from sipfw.errors import Exit
from sipfw.words import format_duration, format_timestamp, pluralize

if TYPE_CHECKING:
    from sipfw.deploy.apply import ApplyOutcome
    from sipfw.deploy.journal import Journal
    from sipfw.host.files import Layout

_FAMILIES = {"ip": "IPv4", "ip6": "IPv6"}
# How long the watchdog may take to bring the old firewall back before we stop watching.
_PATIENCE = 30.0


def report(done: str, outcome: ApplyOutcome) -> None:
    """Print notes, warnings, and what is in force now."""
    waiting = outcome.waiting
    did(
        changed=outcome.stayed is None,
        generation=outcome.generation,
        rules=outcome.rules,
        sets=outcome.sets,
        confirm_within=waiting and round(waiting.seconds_left(), 1),
    )
    for note in outcome.notes:
        complain(f"note: {note}")
    remark(outcome.warnings)
    if outcome.generation is None:
        complain(f"{done}: no firewall of sipfw is in force; SIP is unguarded now")
        return
    if outcome.stayed is not None:
        complain(f"{outcome.stayed}, generation {outcome.generation} stays; nothing to confirm")
        return
    families = " and ".join(_FAMILIES[family] for family in outcome.families)
    complain(
        f"{done}: {pluralize(outcome.rules, 'rule')} for {families}, "
        f"{pluralize(outcome.sets, 'set')}, "
        f"generation {outcome.generation}"
    )


def report_saved(layout: Layout) -> None:
    """Print what the next boot will do with rules that other programs save."""
    from sipfw.upkeep.saved_state import unprepared, warnings

    remark([*warnings(layout), *unprepared(layout)])


def wait_or_leave(layout: Layout, waiting: Journal, *, ask: bool) -> int:
    """Ask at the terminal for the confirmation, or say how to give it."""
    left = waiting.seconds_left()
    until = format_timestamp(time.time() + left)
    complain(
        f"it is taken back in {format_duration(left)}, at {until}, unless you run: sipfw confirm"
    )
    if not (ask and sys.stdin.isatty() and sys.stderr.isatty()):
        return Exit.CLEAN
    try:
        return _prompt(layout, waiting)
    except KeyboardInterrupt:
        complain("\nleft as it is: sipfw confirm keeps it, sipfw rollback takes it back at once")
        return Exit.CLEAN


def _prompt(layout: Layout, waiting: Journal) -> int:
    """Count down until 'yes' or the end; another session may decide first."""
    from sipfw.deploy.repair import unfinished
    from sipfw.deploy.rollback import confirm
    from sipfw.kernel.backend import Options

    listening = [sys.stdin]
    while (left := waiting.seconds_left()) > 0:
        found = unfinished(layout)
        if found is None or found.journal.token != waiting.token or found.undoing:
            break
        sys.stderr.write(f"\rcan you still get in? type yes to keep it ({left:3.0f} s): ")
        sys.stderr.flush()
        if not select.select(listening, [], [], min(1.0, left))[0]:
            continue
        answer = sys.stdin.readline()
        if answer.strip().lower() == "yes":
            kept = confirm(layout, Options())
            remark(kept.warnings)
            complain(f"confirmed: generation {kept.number} stays")
            return Exit.CLEAN
        if not answer:  # end of input: nobody will answer, the watchdog decides
            listening = []
    complain("")
    return _decided(layout, waiting)


def _decided(layout: Layout, waiting: Journal) -> int:
    """Say what came of a change that somebody else has ended."""
    from sipfw.deploy.generations import Generation, read_generation
    from sipfw.deploy.repair import unfinished

    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = unfinished(layout)
        if found is None or found.journal.token != waiting.token:
            break
        time.sleep(0.1)
    number = waiting.coming or 0
    made = read_generation(layout, number)
    if isinstance(made, Generation) and made.confirmed:
        complain(f"confirmed elsewhere: generation {number} stays")
        return Exit.CLEAN
    reason = made.undone if isinstance(made, Generation) and made.undone else "see sipfw history"
    complain(f"generation {number} was taken back: {reason}")
    return Exit.ROLLED_BACK
