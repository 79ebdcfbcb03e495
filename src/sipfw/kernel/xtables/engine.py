"""The engine of iptables: one plan into the kernel's tables and ipset, all of it or nothing.

Order: lock, preparation, snapshot, sets, rules, read back, obsolete sets. Any failure after the
snapshot takes our chains, jumps and sets back to it. How rules get into the tables is the loader's
part. Knows nothing of policy.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.errors import ApplyError, BackendError
from sipfw.kernel.snapshot import look_anew
from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets, SetSnapshot
from sipfw.kernel.xtables.libiptc.limits import OUR_TABLES
from sipfw.kernel.xtables.live import LiveRuleset, differences
from sipfw.kernel.xtables.loaders.loader import Job
from sipfw.kernel.xtables.lock import xtables_lock
from sipfw.kernel.xtables.refusals import (
    named_sets,
    refuse_faults,
    refuse_foreign,
    refuse_strange_sets,
)
from sipfw.kernel.xtables.standing import GUIDE_CHAINS, Adoption
from sipfw.kernel.xtables.way_back import WayBack
from sipfw.lower.xtables import Family, XPlan, XTable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.loaders.loader import Loader
    from sipfw.kernel.xtables.tools import Tables


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What an apply or remove did; `notes` is for the operator's eyes."""

    tables: tuple[str, ...]
    sets: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Change:
    """One run between snapshot and success: what to return to, and how far it came."""

    loader: Loader
    job: Job
    sets: SetSnapshot
    leave: Collection[str]
    notes: list[str]
    step: str = "snapshot"
    changed_sets: tuple[str, ...] = ()
    went_live: bool = False
    left_out: list[str] = field(default_factory=list)

    def is_live(self) -> None:
        """Remember that something of this change may have reached the kernel."""
        self.went_live = True


class Engine:
    """Applies, removes and reads rules of one flavour of iptables.

    `patience` is how long a set may stay in use by rules that are gone, in seconds.
    """

    def __init__(self, runner: Runner, loader: Loader, patience: float = 0.0) -> None:
        self._runner = runner
        self._loader = loader
        self._sets = Ipsets(runner, patience)

    def apply(
        self,
        plan: XPlan,
        *,
        adopt: bool = False,
        reposition: bool = False,
        lock_seconds: float = 10.0,
        leave: Collection[str] = (),
    ) -> ApplyResult:
        """Make the plan live; on failure everything is as it was and a BackendError says why.

        `adopt` takes over chains of our names that somebody else made, in every table;
        `reposition` moves our jumps to the head of their hooks; `leave` names sets that are
        somebody else's.
        """
        refuse_strange_sets(plan, leave)
        refuse_faults(plan)
        # The tools of nf_tables take no lock; there it keeps two runs of ours apart.
        with xtables_lock(lock_seconds), self._loader.locked() as loader:
            look_anew(self._runner)
            if not adopt:
                # Before anything asks for a table by name, which creates it.
                refuse_foreign(_existing(loader), plan.tables)
            ready = loader.prepare(plan, self._sets)
            names = {chain.name for table in ready.plan.tables for chain in table.chains}
            adoption = Adoption(frozenset({*GUIDE_CHAINS, *names} if adopt else ()))
            tables = _existing(loader)
            wanted = _with_emptied(ready.plan.tables, tables, loader.elsewhere(adoption))
            job = Job(ready, wanted, tables, adoption, reposition)
            with named_sets(self._runner, ready.plan):
                sets = self._sets.snapshot_before(ready.plan.sets)
            change = _Change(loader, job, sets, leave, [*ready.notes])
            with signals_later():
                return self._guarded(change)

    def check(self, plan: XPlan, *, adopt: bool = False) -> None:
        """Raise BackendError for what would make `apply` fail on this host; change nothing."""
        refuse_faults(plan)
        existing = _existing(self._loader)
        if not adopt:
            refuse_foreign(existing, plan.tables)
        self._loader.check(plan, self._sets)

    def remove(self, *, lock_seconds: float = 10.0, leave: Collection[str] = ()) -> ApplyResult:
        """Take out everything of ours and nothing else."""
        result = self.apply(XPlan((), ()), lock_seconds=lock_seconds, leave=leave)
        self._loader.tidy([(Family(a), b) for a, b in map(str.split, result.tables)])
        return result

    def read(self) -> LiveRuleset:
        """Return what is live now, changing nothing."""
        ours = [s for s in self._sets.list_if_installed() if s.name.startswith(OUR_PREFIX)]
        return LiveRuleset(_existing(self._loader), tuple(ours))

    def _guarded(self, change: _Change) -> ApplyResult:
        try:
            return self._run(change)
        except BackendError as error:
            trouble = self._roll_back(change)
            kind = ApplyError if change.went_live else BackendError
            message = "; ".join([f"{change.step}: {error.message}", *change.left_out])
            if trouble is None:
                restored = not change.left_out
                raise kind(message, hint=error.hint, restored=restored) from error
            raise kind(f"{message}; and going back failed: {trouble}", restored=False) from error
        except BaseException:
            # A bug of ours must not leave half a firewall either.
            self._roll_back(change)
            raise

    def _run(self, change: _Change) -> ApplyResult:
        job, plan = change.job, change.job.ready.plan
        change.step = "load sets"
        # What is in the snapshot may differ from now on, also when loading fails half way.
        change.changed_sets = tuple(change.sets.saved)
        with named_sets(self._runner, plan):
            loaded = self._sets.load(plan.sets)
        change.changed_sets = loaded.changed
        change.notes += loaded.notes
        change.step = "change rules"
        change.notes += change.loader.load(job, change.is_live)
        change.step = "read back"
        live = _existing(change.loader)
        found = [text for table in job.wanted for text in differences(table, live)]
        if found:
            raise BackendError("; ".join(found))
        change.notes += change.loader.remarks(job.before, live)
        change.notes += drop_obsolete_sets(self._sets, plan, change.leave)
        names = tuple(f"{table.family} {table.name}" for table in job.wanted)
        return ApplyResult(names, loaded.changed, tuple(change.notes))

    def _roll_back(self, change: _Change) -> str | None:
        """Return to the snapshot: rules first, since they may use new sets. None if it worked."""
        loader, job = change.loader, change.job
        touched = tuple((table.family, table.name) for table in job.wanted)
        try:
            back = WayBack(loader.tools, job.before, touched, job.adoption)
            change.left_out = back.go(change.is_live)
            loader.tidy([key for key in touched if key not in job.before])
            saved = {name: change.sets.saved[name] for name in change.changed_sets}
            self._sets.restore(SetSnapshot(saved))
        except BackendError as error:
            return error.message
        return None


def _existing(loader: Loader) -> Tables:
    return loader.tools.existing(Family.IP) | loader.tools.existing(Family.IP6)


def _with_emptied(
    wanted: Sequence[XTable], existing: Tables, adoption: Adoption
) -> tuple[XTable, ...]:
    """Add a wanted table without content for every other one with something to take out or over."""
    keys = {(table.family, table.name) for table in wanted}
    emptied = [
        XTable(name, family, (), ())
        for (family, name), table in existing.items()
        if (family, name) not in keys
        and name in OUR_TABLES
        and (
            any(rule.is_ours for rule in table.rules)
            or any(adoption.covers(chain) for chain in table.chains)
        )
    ]
    return (*wanted, *emptied)


@contextmanager
def signals_later() -> Iterator[None]:
    """Hold back what a lost terminal or an impatient operator sends, also from child processes.

    The default action would end us between two commits. Every child has a deadline, so the wait
    is bounded.
    """
    held = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def drop_obsolete_sets(sets: Ipsets, plan: XPlan, leave: Collection[str] = ()) -> list[str]:
    """Destroy sets of ours that the plan does not use; return a note for each that stays.

    Those in `leave` have a name of ours and are somebody else's.
    """
    wanted = {item.name for item in plan.sets} | {*leave}

    def obsolete() -> list[str]:
        names = [item.name for item in sets.list_if_installed()]
        return [name for name in names if name.startswith(OUR_PREFIX) and name not in wanted]

    notes = []
    with suppress(BackendError):
        sets.destroy(obsolete())
    # One that a rule uses stops the ones behind it, so those left are asked for one by one.
    for name in obsolete():
        try:
            sets.destroy([name], patient=False)
        except BackendError as error:
            notes.append(f"set {name} kept: {error.message}")
    return notes
