"""What somebody else keeps among our things: refused by `apply`, left alone by everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.compare.expected import Expectation
    from sipfw.kernel.backend import Backend, Options
    from sipfw.kernel.strangers import Strangers

_SHOWN = 5


def strangers_in(chosen: Backend, *made: Expectation) -> Strangers:
    """Return what none of the firewalls in `made`, and no rule of ours, accounts for."""
    known = frozenset((item.name, item.type) for each in made for item in each.sets)
    return chosen.strangers(known)


def refuse_strangers(chosen: Backend, now: Expectation, options: Options) -> None:
    """Raise BackendError where an apply would take something of somebody else's away."""
    found = strangers_in(chosen, now)
    if found.names and not options.adopt:
        raise BackendError(
            f"not made by sipfw: {_some(found.details)}",
            hint="move it to a name or a table of your own; --adopt takes it out",
        )


def leaving(options: Options, found: Strangers) -> Options:
    """Return the options of a change that leaves alone what is not ours, unless it may adopt."""
    return options if options.adopt else replace(options, leave=found.names)


def notes_on(before: Strangers, after: Strangers, options: Options) -> list[str]:
    """Say what became of it."""
    gone = [text for text in before.details if text not in after.details]
    rules = [text for text in before.rules if text not in after.rules]
    notes = []
    if after.details and not options.adopt:
        notes.append(f"left alone, since sipfw did not make it: {_some(after.details)}")
    if gone and options.adopt:
        notes.append(f"taken out, though not made by sipfw: {_some(gone)}")
    elif gone:
        notes.append(f"taken out, since it used what of sipfw's had to go: {_some(gone)}")
    if rules:
        notes.append(
            "taken out of chains of sipfw's, which hold the policy and nothing else: "
            f"{_some(rules)}"
        )
    return notes


def _some(texts: tuple[str, ...] | list[str]) -> str:
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
