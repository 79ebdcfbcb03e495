"""Loads legacy tables through libiptc: a worker process commits them one after the other."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.xtables.libiptc.protocol import Operation, WorkerRequest
from sipfw.kernel.xtables.loaders.loader import Prepared
from sipfw.kernel.xtables.refusals import ADOPT_HINT, require_sets
from sipfw.kernel.xtables.standing import GUIDE_CHAINS, Adoption
from sipfw.kernel.xtables.way_back import ATTEMPTS
from sipfw.lower.xtables import Family, XPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.kernel.xtables.ipset import Ipsets
    from sipfw.kernel.xtables.legacy import IptcWorker
    from sipfw.kernel.xtables.loaders.loader import Job
    from sipfw.kernel.xtables.tools import LegacyTools, TableKey, Tables


@dataclass(frozen=True, slots=True)
class LibiptcLoader:
    """A loader for legacy x_tables."""

    tools: LegacyTools
    worker: IptcWorker

    @contextmanager
    def locked(self) -> Iterator[LibiptcLoader]:
        """Give a loader whose programs do not wait for the lock that we hold."""
        with self.tools.with_private_lock() as tools:
            yield replace(self, tools=tools)

    def check(self, plan: XPlan, sets: Ipsets) -> None:
        """Ask for every extension."""
        del sets
        self.worker.refuse_lacks(plan)

    def prepare(self, plan: XPlan, sets: Ipsets) -> Prepared:
        """Ask for the extensions that are not known to be there; leave out what IPv6 lacks."""
        if not self.worker.knows_all(plan):
            self.worker.refuse_lacks(plan)
        plan, notes = _without_absent_families(plan, self.tools)
        require_sets(sets, plan)
        return Prepared(plan, tuple(notes))

    def elsewhere(self, adoption: Adoption) -> Adoption:
        """Take over chains of a pasted script only."""
        return Adoption(adoption.chains & {*GUIDE_CHAINS})

    def load(self, job: Job, live: Callable[[], object]) -> list[str]:
        """Run the worker again while programs that ignore the lock change the tables under it.

        What it notes on a table that it committed holds even if it failed at a later one.
        """
        request = WorkerRequest(
            Operation.APPLY,
            tables=job.wanted,
            adopt_chains=tuple(sorted(self.elsewhere(job.adoption).chains)),
            reposition=job.reposition,
        )
        notes: dict[str, None] = {}
        for _ in range(ATTEMPTS):
            reply = self.worker.ask(request)
            if reply.committed:
                live()
            notes |= dict.fromkeys(reply.notes)
            if reply.error is None:
                return [*notes]
            if not reply.retry:
                raise BackendError(reply.error, hint=ADOPT_HINT if reply.foreign else None)
        raise BackendError(
            str(reply.error),
            hint="apply again when the program that changes it has ended, or let that program "
            "take the xtables lock (iptables -w)",
        )

    def remarks(self, before: Tables, after: Tables) -> list[str]:
        """Return nothing: libiptc sets the counters that it is given."""
        del before, after
        return []

    def tidy(self, tables: Sequence[TableKey]) -> None:
        """Leave empty tables: legacy x_tables has no way to take one out."""


def _without_absent_families(plan: XPlan, tools: LegacyTools) -> tuple[XPlan, list[str]]:
    """Leave out IPv6 where the kernel has none; anything else missing is an error."""
    absent = set()
    for table in plan.tables:
        if tools.table(table.family, table.name) is not None:
            continue
        whole_family = tools.table(table.family, "filter") is None
        if table.family is Family.IP6 and whole_family:
            absent.add(table.family)
            continue
        raise BackendError(
            f"{table.family} {table.name}: the kernel has no such legacy iptables table",
            hint="use the nftables backend, or load iptable_raw, iptable_mangle, iptable_filter",
        )
    if not absent:
        return plan, []
    tables = tuple(table for table in plan.tables if table.family not in absent)
    sets = tuple(item for item in plan.sets if "inet6" not in item.options)
    return XPlan(sets, tables), ["this kernel has no IPv6 packet filter: IPv6 rules left out"]
