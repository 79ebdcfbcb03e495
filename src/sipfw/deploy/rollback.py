"""Ends a waiting change by hand, goes back to an earlier generation, restores one after boot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy import journal as journals
from sipfw.deploy.activate import Result, current, standing, stored, way_back
from sipfw.deploy.apply import outcome_of
from sipfw.deploy.generations import Damaged, read_generation
from sipfw.deploy.journal import Journal
from sipfw.deploy.left_behind import drop_left_sets, elsewhere
from sipfw.deploy.lockout.guard import require_logged_in_kept
from sipfw.deploy.moved import move_to_refuge
from sipfw.deploy.overtaken import refuse_overtaken, standing_now
from sipfw.deploy.repair import (
    WAYS_OUT,
    now_live,
    settle,
    undo,
    unfinished,
    waiting_text,
    what,
    why,
)
from sipfw.deploy.stored_content import different_before
from sipfw.deploy.transaction import carry_out, signals_later
from sipfw.errors import ApplyError, BackendError
from sipfw.host.locks import state_lock
from sipfw.host.privilege import require_root
from sipfw.host.state_folders import close_folders
from sipfw.kernel.backend import UnworkableError
from sipfw.words import format_duration

if TYPE_CHECKING:
    from sipfw.deploy.activate import Current, Firewall
    from sipfw.deploy.apply import ApplyOutcome
    from sipfw.deploy.repair import Undone
    from sipfw.diagnostics import Diagnostic
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The generation that stays, and whom it locks out all the same."""

    number: int
    warnings: tuple[Diagnostic, ...]


def confirm(layout: Layout, options: Options) -> Confirmed:
    """Keep what waits to be confirmed. Raises BackendError when too late.

    Also where it locks out somebody who is logged in by now: a tunnel or a session may have come
    up since the apply, whose guard did not see it. The change then waits on.
    """
    require_root()
    if not layout.state.exists():
        raise _nothing_waits(layout)
    with signals_later(), state_lock(layout, seconds=5.0):
        found = unfinished(layout)
        if found is None:
            raise _nothing_waits(layout)
        number = found.journal.coming
        # A watchdog that was killed acts no more: whoever confirms late still wants to keep it.
        if found.open and number is not None:
            warnings = _newcomers(layout, found.journal, number, options)
            if journals.keep(layout, number):
                return Confirmed(number, tuple(warnings))
        reason = why(found)
        undone = undo(layout, found.journal, options, reason)
    raise ApplyError(f"{what(found.journal)} was taken back: {reason}; {now_live(undone)}")


def _newcomers(layout: Layout, waiting: Journal, number: int, options: Options) -> list[Diagnostic]:
    firewall = stored(layout, number, lists=False)
    if isinstance(firewall, Damaged):
        return []
    try:
        return require_logged_in_kept(firewall.ruleset, force=options.force or waiting.forced)
    except BackendError as error:
        left = format_duration(waiting.seconds_left())
        raise BackendError(
            f"not confirmed, for somebody has come since the apply: {error.message}",
            hint=f"what was in force before comes back in {left}, or sipfw confirm --force",
        ) from error


def _nothing_waits(layout: Layout) -> BackendError:
    now = current(layout)
    if now.generation is None:
        return BackendError("nothing waits to be confirmed, and no generation is in force")
    return BackendError(
        f"nothing waits to be confirmed; generation {now.generation} is in force",
        hint="see sipfw history",
    )


def rollback(
    layout: Layout, number: int | None, options: Options, *, called: float | None = None
) -> ApplyOutcome:
    """Make generation `number` live, by default the last one before that means something else.

    A change that waits to be confirmed is taken back. Raises BackendError where somebody else has
    changed the firewall since this was called, or since the moment `called`, and no number says
    what is meant.
    """
    require_root()
    if not layout.state.exists():
        raise _nothing_applied()
    seen = standing_now(layout)
    with signals_later(), state_lock(layout, seconds=5.0):
        if number is None:
            refuse_overtaken(layout, seen, called)
        found = unfinished(layout)
        if found is not None:
            if number is not None and found.open:
                raise BackendError(waiting_text(found.journal), hint=WAYS_OUT)
            by_hand = "taken back by sipfw rollback" if found.open else why(found)
            undone = undo(layout, found.journal, options, by_hand)
            if number is None:
                return _outcome_of_undo(layout, undone)
        now = current(layout)
        firewall, skipped = _chosen(layout, number, now)
        warnings = (
            []
            if firewall is None
            else require_logged_in_kept(firewall.ruleset, force=options.force)
        )
        backends = {now.backend, None if firewall is None else firewall.backend}
        coming = None if firewall is None else firewall.generation
        result, _ = carry_out(
            layout,
            Journal("rollback", now.generation, coming, tuple(sorted(filter(None, backends)))),
            firewall,
            options,
            looked_for=now.expectation,
        )
    return outcome_of(result, coming, notes=skipped, warnings=warnings)


@dataclass(frozen=True, slots=True)
class Step:
    """Where a rollback leads: from what is live to `coming`, None for no firewall."""

    live: int | None
    coming: int | None


def destination(layout: Layout, number: int | None) -> Step:
    """Say where `rollback` would lead now. Raises the same errors, changes nothing."""
    require_root()
    if not layout.state.exists():
        raise _nothing_applied()
    found = unfinished(layout)
    if found is not None and number is None:
        return Step(found.journal.coming, found.journal.before)
    now = current(layout)
    firewall, _ = _chosen(layout, number, now)
    return Step(now.generation, None if firewall is None else firewall.generation)


def _nothing_applied() -> BackendError:
    return BackendError("nothing to go back to: sipfw has applied nothing yet")


def _outcome_of_undo(layout: Layout, undone: Undone) -> ApplyOutcome:
    live = Result(current(layout).expectation, undone.notes, ())
    return outcome_of(live, None if undone.firewall is None else undone.firewall.generation)


def _chosen(layout: Layout, number: int | None, now: Current) -> tuple[Firewall | None, list[str]]:
    """Return the generation to go to. One that was asked for by number is not replaced."""
    if number is not None:
        found = stored(layout, number)
        if isinstance(found, Damaged):
            raise BackendError(
                f"generation {number} cannot be used: {found.reason}", hint="see sipfw history"
            )
        return found, []
    if now.generation is None:
        raise BackendError(
            "no generation is in force, so there is none before it",
            hint="name one: sipfw rollback N, see sipfw history",
        )
    live = read_generation(layout, now.generation)
    if isinstance(live, Damaged):
        raise BackendError(
            f"generation {live.number} is damaged ({live.reason}), so what was before it is not "
            "known",
            hint="name one: sipfw rollback N, see sipfw history",
        )
    firewall, skipped = way_back(layout, different_before(layout, live))
    if firewall is None and skipped:
        raise BackendError("; ".join(skipped), hint="sipfw remove takes the firewall out")
    return firewall, skipped


def restore(layout: Layout, options: Options) -> ApplyOutcome | None:
    """Make the last confirmed generation live, after boot for example; None when there is none."""
    require_root()
    if not layout.state.exists():
        return None
    with signals_later(), state_lock(layout, seconds=5.0):
        return restore_locked(layout, options)


def restore_locked(layout: Layout, options: Options) -> ApplyOutcome | None:
    """Do what `restore` does, for who holds the state lock."""
    said = (*close_folders(layout), *settle(layout, options))
    now = current(layout)
    number = standing(layout)
    firewall, skipped = way_back(layout, number)
    if firewall is None:
        if skipped:
            raise BackendError("; ".join(skipped), hint="apply a policy anew")
        return None
    backends = (firewall.backend, *elsewhere(firewall))
    try:
        # A restore that dies is repeated: what was before it is what it restores.
        result, _ = carry_out(
            layout,
            Journal("restore", number, firewall.generation, backends),
            firewall,
            options,
            looked_for=now.expectation,
        )
    except UnworkableError as error:
        return move_to_refuge(layout, firewall, options, error)
    left = drop_left_sets(firewall)
    return outcome_of(result, firewall.generation, notes=(*said, *skipped, *left))
