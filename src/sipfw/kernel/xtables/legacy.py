"""The live iptables backend: one plan into legacy x_tables and ipset, all of it or nothing.

Order: lock, snapshot, sets, rules (in the worker process), read back, obsolete sets. Any failure
after the snapshot takes our chains, jumps and sets back to it. Knows nothing of policy.
"""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import ApplyError, BackendError
from sipfw.host.runner import Runner, SubprocessRunner
from sipfw.kernel.lacking import LackingError, lacks_of
from sipfw.kernel.snapshot import look_anew
from sipfw.kernel.xtables.edit import Adoption
from sipfw.kernel.xtables.engine import (
    ATTEMPTS,
    GUIDE_CHAINS,
    ApplyResult,
    WayBack,
    drop_obsolete_sets,
    named_sets,
    refuse_foreign,
    refuse_strange_sets,
    require_sets,
    signals_later,
)
from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets, SetSnapshot
from sipfw.kernel.xtables.libiptc.limits import OUR_TABLES, plan_faults
from sipfw.kernel.xtables.libiptc.patches import has_library, plugin_directory
from sipfw.kernel.xtables.libiptc.protocol import (
    Feature,
    Operation,
    WorkerReply,
    WorkerRequest,
    decode_reply,
    encode_request,
)
from sipfw.kernel.xtables.live import LiveRuleset, differences
from sipfw.kernel.xtables.lock import xtables_lock
from sipfw.kernel.xtables.parts import missing_sets, registered
from sipfw.kernel.xtables.tools import LegacyTools, Tables
from sipfw.lower.xtables import Family, XPlan, XTable
from sipfw.resources import import_root

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

WORKER_TIMEOUT = 60.0

# -I keeps the directory that root stands in and every PYTHON* variable out of the worker; the
# parent's own package directory is handed over, since a checkout is not on the isolated path.
_START_WORKER = (
    "import runpy, sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "runpy.run_module('sipfw.kernel.xtables.libiptc.worker', run_name='__main__')"
)


@dataclass(slots=True)
class _Change:
    """One run between snapshot and success: what to return to, and how far it came."""

    tools: LegacyTools
    back: WayBack
    sets: SetSnapshot
    step: str = "snapshot"
    changed_sets: tuple[str, ...] = ()
    went_live: bool = False
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    leave: Collection[str] = ()

    def is_live(self) -> None:
        """Remember that something of this change may have reached the kernel."""
        self.went_live = True


class IptablesBackend:
    """Applies, removes and reads rules of legacy iptables through python-iptables."""

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner or SubprocessRunner()
        self._sets = Ipsets(self._runner)
        self._tools = LegacyTools(self._runner)

    def apply(
        self,
        plan: XPlan,
        *,
        adopt: bool = False,
        adopt_chains: Collection[str] = GUIDE_CHAINS,
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
        faults = plan_faults(plan)
        if faults:
            raise BackendError("\n".join(faults))
        with xtables_lock(lock_seconds), self._tools.with_private_lock() as tools:
            look_anew(self._runner)
            if plan.tables and not adopt:
                # Before anything asks for a table by name, which creates it.
                refuse_foreign(_existing(tools), plan.tables, adopt_chains)
            if not self._knows_all(plan):
                self._refuse_lacks(plan)
            plan, notes = _without_absent_families(plan, tools)
            require_sets(self._sets, plan)
            existing = _existing(tools)
            tables = _touched(existing, plan.tables, adopt_chains if adopt else ())
            names = {chain.name for table in plan.tables for chain in table.chains}
            adoption = Adoption(frozenset({*adopt_chains, *names} if adopt else ()))
            back = WayBack(tools, tables, tuple(tables), adoption, legacy=True)
            with named_sets(self._runner, plan):
                sets = self._sets.snapshot_before(plan.sets)
            change = _Change(tools, back, sets, notes=notes, leave=leave)
            request = WorkerRequest(
                Operation.APPLY,
                tables=_with_emptied(plan.tables, tables),
                adopt=adopt,
                adopt_chains=tuple(adopt_chains),
                reposition=reposition,
            )
            with signals_later():
                return self._guarded(change, plan, request)

    def check(
        self,
        plan: XPlan,
        *,
        adopt: bool = False,
        adopt_chains: Collection[str] = GUIDE_CHAINS,
    ) -> None:
        """Raise BackendError for what would make `apply` fail on this host; change nothing."""
        faults = plan_faults(plan)
        if faults:
            raise BackendError("\n".join(faults))
        if not adopt:
            names = {chain.name for table in plan.tables for chain in table.chains}
            refuse_foreign(_existing(self._tools), (), {*adopt_chains, *names})
        self._refuse_lacks(plan)

    def remove(self, *, lock_seconds: float = 10.0, leave: Collection[str] = ()) -> ApplyResult:
        """Take out everything of ours and nothing else."""
        return self.apply(XPlan((), ()), lock_seconds=lock_seconds, leave=leave)

    def read(self) -> LiveRuleset:
        """Return what is live now, changing nothing."""
        tables: Tables = {}
        for family in Family:
            tables |= self._tools.existing(family)
        ours = [item for item in self._sets.list_sets() if item.name.startswith(OUR_PREFIX)]
        return LiveRuleset(tables, tuple(ours))

    def probe(self, features: Sequence[str]) -> tuple[Feature, ...]:
        """Ask which extensions work here; "table" asks for legacy iptables as such."""
        reply = self._work(WorkerRequest(Operation.PROBE, features=tuple(features)))
        if reply.error is not None:
            raise BackendError(reply.error)
        return reply.features

    @staticmethod
    def _knows_all(plan: XPlan) -> bool:
        """Tell whether libxtables and the kernel have every extension, so that none is tried."""
        wanted = set(_extensions(plan))
        folder = plugin_directory(sysconfig.get_config_var("MULTIARCH") or "")
        if folder is None or not all(has_library(Path(folder), name) for name in wanted):
            return False
        return all(wanted <= registered(family) for family in {t.family for t in plan.tables})

    def _refuse_lacks(self, plan: XPlan) -> None:
        """Raise LackingError for what python-iptables, ipset or the kernel cannot do here."""
        # A kernel without IPv6 tables has a firewall without them.
        lacks = [
            lack
            for lack in lacks_of(self.probe(["table", *_extensions(plan)]))
            if (lack.part, lack.family) != ("table", Family.IP6)
        ]
        lacks += missing_sets(self._runner, plan)
        if lacks:
            raise LackingError(lacks)

    def _guarded(self, change: _Change, plan: XPlan, request: WorkerRequest) -> ApplyResult:
        try:
            return self._run(change, plan, request)
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

    def _run(self, change: _Change, plan: XPlan, request: WorkerRequest) -> ApplyResult:
        change.step = "load sets"
        # What is in the snapshot may differ from now on, also when loading fails half way.
        change.changed_sets = tuple(change.sets.saved)
        with named_sets(self._runner, plan):
            loaded = self._sets.load(plan.sets)
        change.changed_sets = loaded.changed
        change.step = "change rules"
        committed = self._work_until_quiet(request, change)
        change.step = "read back"
        found = [
            text
            for table in request.tables
            if (live := change.tools.table(table.family, table.name)) is not None
            for text in differences(table, live)
        ]
        if found:
            raise BackendError("; ".join(found))
        gone = drop_obsolete_sets(self._sets, plan, change.leave)
        notes = [*change.notes, *loaded.notes, *gone]
        return ApplyResult(committed, loaded.changed, tuple(notes))

    def _roll_back(self, change: _Change) -> str | None:
        """Return to the snapshot: tables first, since they may hold new sets. None if it worked."""
        try:
            change.left_out = change.back.go(change.is_live)
            names = change.changed_sets
            saved = {name: change.sets.saved[name] for name in names}
            self._sets.restore(SetSnapshot(saved))
        except BackendError as error:
            return error.message
        return None

    def _work_until_quiet(self, request: WorkerRequest, change: _Change) -> tuple[str, ...]:
        """Run the worker again while programs that ignore the lock change the tables under it.

        Returns which tables it committed. What it notes on a table that it committed holds even if
        it failed at a later one.
        """
        for attempt in range(ATTEMPTS):
            reply = self._work(request)
            change.went_live = change.went_live or bool(reply.committed)
            change.notes += [note for note in reply.notes if note not in change.notes]
            if reply.error is None:
                return reply.committed
            if reply.foreign:
                raise BackendError(reply.error, hint="apply with --adopt to take it over")
            if not reply.retry:
                raise BackendError(reply.error)
            if attempt == ATTEMPTS - 1:
                raise BackendError(
                    reply.error,
                    hint="apply again when the program that changes it has ended, or let that "
                    "program take the xtables lock (iptables -w)",
                )
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _work(self, request: WorkerRequest) -> WorkerReply:
        plugins = plugin_directory(sysconfig.get_config_var("MULTIARCH") or "")
        done = self._runner.run(
            [sys.executable, "-I", "-c", _START_WORKER, import_root()],
            stdin=encode_request(request),
            timeout=WORKER_TIMEOUT,
            env={} if plugins is None else {"XTABLES_LIBDIR": plugins},
        )
        try:
            return decode_reply(done.stdout)
        except ValueError:
            said = done.stderr.strip().splitlines()[-1:]
            how = f"signal {-done.returncode}" if done.returncode < 0 else f"{done.returncode}"
            raise BackendError(" ".join([f"worker process died ({how})", *said])) from None


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


def _touched(existing: Tables, wanted: Sequence[XTable], adopt: Collection[str]) -> Tables:
    """Choose the wanted tables, and those that hold something to take out or over."""
    keys = {(table.family, table.name) for table in wanted}
    return {
        key: table
        for key, table in existing.items()
        if key in keys
        or (
            table.name in OUR_TABLES
            and (
                any(rule.is_ours for rule in table.rules)
                or any(table.chain(name) is not None for name in adopt)
            )
        )
    }


def _with_emptied(wanted: Sequence[XTable], touched: Tables) -> tuple[XTable, ...]:
    """Add a wanted table without content for every touched one that the plan does not use."""
    keys = {(table.family, table.name) for table in wanted}
    emptied = [
        XTable(name, family, (), ()) for family, name in touched if (family, name) not in keys
    ]
    return (*wanted, *emptied)


def _extensions(plan: XPlan) -> list[str]:
    """Name the match and target extensions of a plan; verdicts and chains are no extensions."""
    rules = [
        rule
        for table in plan.tables
        for rule in (
            *(rule for chain in table.chains for rule in chain.rules),
            *(jump.rule for jump in table.jumps),
        )
    ]
    matches = {match.name for rule in rules for match in rule.matches} - {"icmp", "icmp6"}
    targets = {rule.target.name for rule in rules if rule.target is not None and rule.target.params}
    # Each rule has a comment.
    return sorted(matches | targets | {"comment"})


def _existing(tools: LegacyTools) -> Tables:
    return tools.existing(Family.IP) | tools.existing(Family.IP6)
