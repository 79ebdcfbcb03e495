"""One change from its journal to its end: kept, waiting to be confirmed, or taken back.

Whatever kills the command on the way leaves a journal, and a watchdog that goes back.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.deploy import journal as journals
from sipfw.deploy.activate import fingerprint, make_live
from sipfw.deploy.arming import arm
from sipfw.deploy.generations import discard
from sipfw.deploy.journal import Journal, Phase, boottime
from sipfw.deploy.repair import undo
from sipfw.errors import ApplyError, BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.compare.expected import Expectation
    from sipfw.deploy.activate import Firewall, Result
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.kernel.snapshot import HostSnapshot


@contextmanager
def signals_later() -> Iterator[None]:
    """Hold back what a lost terminal or an impatient operator sends until a change has an end.

    Ctrl-Z too: a stopped command would hold the lock while nobody can reach the host. Every
    program that is started has a deadline, so the wait is bounded.
    """
    held = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTSTP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def carry_out(
    layout: Layout,
    journal: Journal,
    firewall: Firewall | None,
    options: Options,
    *,
    looked_for: Expectation,
    confirm: int | None = None,
) -> tuple[Result, Journal | None]:
    """Make it live, and keep it, or return the journal of a change that waits `confirm` seconds.

    On failure what was live before is in force, and BackendError says why. Needs the state lock.
    `looked_for` is what to read in the kernel to see whether a failure has changed anything.
    """
    try:
        before = fingerprint(journal.backends, looked_for, options.host)
        _begin(layout, journal)
    except BaseException:
        _forget(layout, journal)
        raise
    try:
        result = make_live(firewall, journal.backends, layout, options)
        if confirm is None:
            _keep(layout, journal)
            return result, None
        waiting = replace(journal, phase=Phase.WAITING, deadline=boottime() + confirm)
        journals.write(layout, waiting)
    except BaseException as error:
        # Whatever it is: a bug of ours must not leave half a firewall either.
        # What is there now is read anew.
        options.host.forget()
        untouched = _untouched(error, before, journal, looked_for, options.host)
        _go_back(layout, journal, options, error, untouched=untouched)
        raise
    return result, waiting


def _begin(layout: Layout, journal: Journal) -> None:
    journals.write(layout, journal)
    arm(layout, journal)


def _keep(layout: Layout, journal: Journal) -> None:
    """End the change; the one step after which nobody goes back."""
    if journal.coming is None:
        journals.drop(layout)
    elif not journals.keep(layout, journal.coming):
        raise BackendError("somebody has removed the journal of this change")


def _untouched(
    error: BaseException,
    before: list[object],
    journal: Journal,
    looked_for: Expectation,
    host: HostSnapshot,
) -> bool:
    """Tell whether the kernel holds what it held: a refusal often comes before any change."""
    if not isinstance(error, BackendError) or isinstance(error, ApplyError):
        return isinstance(error, ApplyError) and error.restored
    try:
        return error.restored or fingerprint(journal.backends, looked_for, host) == before
    except BackendError:
        return False


def _go_back(
    layout: Layout, journal: Journal, options: Options, error: BaseException, *, untouched: bool
) -> None:
    """Take the change back; raises where there is more to say than the error itself."""
    if untouched:
        _forget(layout, journal)
        return
    try:
        undo(layout, journal, options, f"it failed: {error}")
    except BackendError as trouble:
        raise ApplyError(
            f"{error}; and going back failed: {trouble}",
            hint="sipfw goes on trying in the background; run sipfw rollback to see why not",
        ) from error
    if isinstance(error, BackendError):
        raise ApplyError(
            error.message, hint="what was in force before is in force again", restored=True
        ) from error


def _forget(layout: Layout, journal: Journal) -> None:
    """Take away the traces of a change that has changed nothing."""
    journals.drop(layout)
    if journal.operation == "apply" and journal.coming is not None:
        discard(layout, journal.coming)
