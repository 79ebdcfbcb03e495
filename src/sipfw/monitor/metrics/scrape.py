"""One look at the host for a monitoring system, which gets an answer also when it fails."""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sipfw.deploy.generations import Generation, read_generation
from sipfw.deploy.none_active import HINT, NOTHING
from sipfw.deploy.repair import unfinished
from sipfw.errors import BackendError
from sipfw.monitor.observe import applied_subject, keep, observe
from sipfw.upkeep.restores import Restores, read_restores

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipfw.host.files import Layout
    from sipfw.monitor.observe import Observation

NOTHING_APPLIED = f"{NOTHING}; {HINT}"
# A reading for `verify --since` and the report is kept no more often than this, in seconds.
_GAP = 60.0


@dataclass(frozen=True, slots=True)
class UnfinishedChange:
    """A change without an end: it waits for `sipfw confirm`, or died half way and `left` is 0."""

    left: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one look found; `seen` is None where there is a `problem`.

    `applied` is when the live generation was made, in seconds since 1970. `note` is what went
    wrong beside the look.
    """

    seen: Observation | None
    problem: str = ""
    applied: float | None = None
    change: UnfinishedChange | None = None
    restores: Restores = field(default_factory=Restores)
    seconds: float = 0.0
    note: str = ""


def scrape(layout: Layout) -> Scrape:
    """Look, and keep the reading. Writes nothing to the kernel and raises no SipfwError."""
    started = time.perf_counter()
    try:
        found = _look(layout)
    except BackendError as error:
        found = Scrape(None, str(error), restores=read_restores(layout))
    return replace(found, seconds=time.perf_counter() - started)


def _look(layout: Layout) -> Scrape:
    subject = applied_subject(layout)
    if subject is None:
        return Scrape(None, NOTHING_APPLIED, change=_change(layout))
    # A gauge that comes with a loss would be missed until there is one.
    seen = observe(subject, None, all_peers=True)
    note = ""
    try:
        keep(layout, seen, _GAP)
    except (BackendError, OSError) as error:
        note = f"the reading is not kept: {error}"
    return Scrape(
        seen,
        applied=_applied(layout, subject.generation),
        change=_change(layout),
        restores=read_restores(layout),
        note=note,
    )


def _change(layout: Layout) -> UnfinishedChange | None:
    found = unfinished(layout)
    if found is None:
        return None
    return UnfinishedChange(found.journal.seconds_left() if found.open else 0.0)


def _applied(layout: Layout, number: int | None) -> float | None:
    found = None if number is None else read_generation(layout, number)
    if not isinstance(found, Generation):
        return None
    try:
        return dt.datetime.fromisoformat(found.time).timestamp()
    except (ValueError, OverflowError):
        return None


class Cached:
    """One look for all who ask within `seconds`, so that scrapes cannot keep the host busy."""

    def __init__(
        self,
        look: Callable[[], Scrape],
        seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Scrape | None = None
        self._taken = 0.0

    def get(self) -> Scrape:
        """Return a look that is not older than that; wait for one that is under way."""
        with self._lock:
            if self._found is None or self._clock() - self._taken > self._seconds:
                self._found = self._look()
                self._taken = self._clock()
            return self._found

    def finish(self, seconds: float) -> None:
        """Wait for a look that is under way, and let nobody begin another one."""
        self._lock.acquire(timeout=seconds)
