"""Ends a change that nobody else will end: goes back to what was live before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy import journal as journals
from sipfw.deploy.activate import NOTHING, Firewall, current, make_live, standing, stored, way_back
from sipfw.deploy.arming import arm
from sipfw.deploy.generations import mark_undone
from sipfw.deploy.journal import Journal
from sipfw.deploy.orphans import wait_for_orphans
from sipfw.errors import BackendError
from sipfw.host.locks import watchdog_is_alive
from sipfw.kernel.backend import Options, backend_of, installed_backends
from sipfw.words import format_duration

if TYPE_CHECKING:
    from sipfw.compare.expected import Expectation
    from sipfw.host.files import Layout

NOT_CONFIRMED = "not confirmed in time"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A change without an end; `undoing` when it was decided already to go back."""

    journal: Journal
    undoing: bool

    @property
    def open(self) -> bool:
        """Tell whether it may still be confirmed."""
        return self.journal.waits and not self.undoing


@dataclass(frozen=True, slots=True)
class Undone:
    """What a change was replaced by, None for no firewall; `notes` are for the operator."""

    firewall: Firewall | None
    notes: tuple[str, ...]


def unfinished(layout: Layout) -> Unfinished | None:
    """Return the change that has no end yet.

    A journal that cannot be read still says that there is one; what was before it then follows
    from the record.
    """
    # In this order, because a change goes from the first to the second and never back.
    for path, undoing in ((layout.pending, False), (layout.undo, True)):
        try:
            found = journals.read(path)
        except ValueError:
            found = _guessed(layout)
        if found is not None:
            return Unfinished(found, undoing)
    return None


def _guessed(layout: Layout) -> Journal:
    now = current(layout)
    backends = installed_backends() if now.backend is None else [now.backend]
    return Journal("change", standing(layout), now.generation, tuple(backends), boot="unknown")


def undo(layout: Layout, journal: Journal, options: Options, reason: str) -> Undone:
    """Make live what was before the change. Needs the state lock.

    Raises BackendError when the kernel refuses; `undo.json` then stays, and the next command goes
    on from there.
    """
    journals.turn_back(layout)
    wait_for_orphans(journal)
    firewall, notes = way_back(layout, journal.before)
    made = _made_by(layout, journal)
    options.host.forget()
    result = make_live(firewall, journal.backends, layout, options, made=made)
    if journal.operation == "apply" and journal.coming is not None:
        mark_undone(layout, journal.coming, reason)
    journals.drop(layout)
    return Undone(firewall, (*notes, *result.notes, *map(str, result.warnings)))


def _made_by(layout: Layout, journal: Journal) -> Expectation:
    """Return what a change that is taken back may have put into the kernel already."""
    found = None if journal.coming is None else stored(layout, journal.coming, lists=False)
    if not isinstance(found, Firewall):
        return NOTHING
    return backend_of(found.backend, ipset=found.ipset).expectation(found.ruleset)


def settle(layout: Layout, options: Options) -> tuple[str, ...]:
    """Finish what an earlier command left; return what is worth saying about it.

    Raises BackendError while a change waits for its confirmation. Needs the state lock.
    """
    found = unfinished(layout)
    if found is None:
        return ()
    if found.open and found.journal.seconds_left() > 0:
        if not watchdog_is_alive(layout):
            arm(layout, found.journal)
        raise BackendError(waiting_text(found.journal), hint=WAYS_OUT)
    reason = why(found)
    undone = undo(layout, found.journal, options, reason)
    return (f"{what(found.journal)} was taken back: {reason}; {now_live(undone)}", *undone.notes)


WAYS_OUT = "`sipfw confirm` keeps it, `sipfw rollback` takes it back"


def waiting_text(journal: Journal) -> str:
    """Say that a change waits and for how long."""
    left = f"{format_duration(journal.seconds_left())} left"
    return f"{what(journal)} waits to be confirmed, {left}"


def why(found: Unfinished) -> str:
    """Say why a change must be taken back."""
    if found.undoing:
        return "going back had begun"
    if found.journal.boot != journals.boot_id():
        return "the host was restarted before its end"
    if found.open:
        return NOT_CONFIRMED
    return f"sipfw {found.journal.operation} ended before it was done"


def what(journal: Journal) -> str:
    """Name what the change was to make live."""
    return "the removal" if journal.coming is None else f"generation {journal.coming}"


def now_live(undone: Undone) -> str:
    """Say what is in force after going back."""
    if undone.firewall is None:
        return "no firewall of sipfw is in force"
    return f"generation {undone.firewall.generation} is in force"
