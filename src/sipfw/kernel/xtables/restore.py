"""The live iptables backend where iptables is the nf_tables flavour: ipset and iptables-restore.

Order: rehearsal in a scratch namespace, snapshot, sets, one restore per family (each table of it
one transaction), read back, obsolete sets. Any failure after the snapshot takes our chains, jumps
and sets back to it. Knows nothing of policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.errors import ApplyError, BackendError
from sipfw.host.runner import Runner, SubprocessRunner
from sipfw.kernel.lacking import LackingError
from sipfw.kernel.namespace import ProgramRun, run_in_scratch
from sipfw.kernel.nft.empty_tables import drop_empty_tables
from sipfw.kernel.snapshot import look_anew
from sipfw.kernel.xtables.edit import Adoption, change, foreign_chains
from sipfw.kernel.xtables.engine import (
    GUIDE_CHAINS,
    ApplyResult,
    WayBack,
    drop_obsolete_sets,
    load_edits,
    named_sets,
    refuse_foreign,
    refuse_strange_sets,
    require_sets,
    signals_later,
)
from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets, SetSnapshot
from sipfw.kernel.xtables.libiptc.limits import OUR_TABLES, plan_faults
from sipfw.kernel.xtables.live import LiveRuleset, differences
from sipfw.kernel.xtables.lock import xtables_lock
from sipfw.kernel.xtables.nft_tools import PROGRAM, NftFlavourTools, explained
from sipfw.kernel.xtables.parts import missing_parts
from sipfw.kernel.xtables.save_text import parse_save
from sipfw.lower.xtables import Family, XPlan, XTable
from sipfw.render.restore import restore_text
from sipfw.render.xtables_text import set_create_line

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sipfw.kernel.xtables.tools import TableKey, Tables

RESTORERS = {family: f"{name}-restore" for family, name in PROGRAM.items()}

# nf_tables frees the rules of a finished transaction in a work queue, and their sets with them.
_SETS_IN_USE_SECONDS = 2.0


@dataclass(slots=True)
class _Change:
    """One run between snapshot and success: what to return to, and how far it came."""

    tables: Tables
    sets: SetSnapshot
    adoption: Adoption
    touched: tuple[TableKey, ...]
    step: str = "snapshot"
    changed_sets: tuple[str, ...] = ()
    went_live: bool = False
    left_out: list[str] = field(default_factory=list)
    leave: Collection[str] = ()

    def is_live(self) -> None:
        """Remember that something of this change may have reached the kernel."""
        self.went_live = True


class RestoreBackend:
    """Applies, removes and reads rules of iptables-nft through its restore programs."""

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner or SubprocessRunner()
        self._sets = Ipsets(self._runner, patience=_SETS_IN_USE_SECONDS)
        self._tools = NftFlavourTools(self._runner)

    def apply(
        self,
        plan: XPlan,
        *,
        adopt: bool = False,
        lock_seconds: float = 10.0,
        leave: Collection[str] = (),
    ) -> ApplyResult:
        """Make the plan live; on failure everything is as it was and a BackendError says why.

        `adopt` takes over chains of our names that somebody else made, in every table; `leave`
        names sets that are somebody else's.
        """
        refuse_strange_sets(plan, leave)
        _refuse_faults(plan)
        # These tools take no lock; it keeps two runs of ours apart.
        with xtables_lock(lock_seconds):
            look_anew(self._runner)
            tables = self._existing()
            self._refuse_foreign(plan, tables, adopt=adopt)
            require_sets(self._sets, plan)
            rehearsed = self._rehearse(plan)
            names = {chain.name for table in plan.tables for chain in table.chains}
            adoption = Adoption(frozenset({*GUIDE_CHAINS, *names} if adopt else ()))
            wanted = _with_emptied(plan.tables, tables, adoption)
            touched = tuple((table.family, table.name) for table in wanted)
            sets = self._sets.snapshot_before(plan.sets)
            made = _Change(tables, sets, adoption, touched, leave=leave)
            with signals_later():
                return self._guarded(made, plan, wanted, rehearsed)

    def check(self, plan: XPlan, *, adopt: bool = False) -> None:
        """Raise BackendError for what would make `apply` fail on this host; change nothing."""
        _refuse_faults(plan)
        self._refuse_foreign(plan, self._existing(), adopt=adopt)
        require_sets(self._sets, plan)
        if plan.sets:
            with named_sets(self._runner, plan):
                self._sets.list_sets()
        self._rehearse(plan)

    def remove(self, *, lock_seconds: float = 10.0, leave: Collection[str] = ()) -> ApplyResult:
        """Take out everything of ours and nothing else, and the tables that it leaves empty."""
        result = self.apply(XPlan((), ()), lock_seconds=lock_seconds, leave=leave)
        drop_empty_tables(self._runner, [(Family(a), b) for a, b in map(str.split, result.tables)])
        return result

    def read(self) -> LiveRuleset:
        """Return what is live now, changing nothing."""
        ours = [s for s in self._sets.list_if_installed() if s.name.startswith(OUR_PREFIX)]
        return LiveRuleset(self._existing(), tuple(ours))

    def _existing(self) -> Tables:
        return self._tools.existing(Family.IP) | self._tools.existing(Family.IP6)

    def _refuse_foreign(self, plan: XPlan, tables: Tables, *, adopt: bool) -> None:
        if adopt or not plan.tables:
            return
        refuse_foreign(tables, plan.tables, GUIDE_CHAINS)
        found = [
            f"chain {table.family} {table.name} {name}"
            for table in plan.tables
            for name in foreign_chains(table, tables.get((table.family, table.name)))
        ]
        if found:
            raise BackendError(
                f"not made by sipfw: {', '.join(found)}", hint="apply with --adopt to take it over"
            )

    def _rehearse(self, plan: XPlan) -> Tables:
        """Load the plan where it hurts nobody and return how the kernel lists it.

        Empty where no scratch namespace can be made: then the host's own kernel is the first judge.
        """
        texts = {family: restore_text(plan, family) for family in Family}
        sets = "".join(f"{set_create_line(item)}\n" for item in plan.sets)
        steps = [ProgramRun(("ipset", "restore"), sets)] if sets else []
        steps += [ProgramRun((RESTORERS[family], "--noflush"), texts[family]) for family in Family]
        steps += [ProgramRun((f"{PROGRAM[family]}-save", "-c")) for family in Family]
        done = run_in_scratch(self._runner, steps) if plan.tables else None
        if done is None:
            return {}
        if done[-1].returncode != 0:
            lacks = missing_parts(self._runner, plan, RESTORERS)
            if lacks:
                raise LackingError(lacks)
            step = steps[len(done) - 1]
            raise BackendError(
                f"this host cannot run the rules: {explained(step.argv[0], done[-1], step.stdin)}",
                hint="load the modules, or leave the layer out of the policy",
            )
        return {
            (family, table.name): table
            for family, result in zip(Family, done[-len(Family) :], strict=True)
            for table in parse_save(result.stdout)
        }

    def _guarded(
        self, made: _Change, plan: XPlan, wanted: Sequence[XTable], rehearsed: Tables
    ) -> ApplyResult:
        try:
            return self._run(made, plan, wanted, rehearsed)
        except BackendError as error:
            trouble = self._roll_back(made)
            kind = ApplyError if made.went_live else BackendError
            message = "; ".join([f"{made.step}: {error.message}", *made.left_out])
            if trouble is None:
                restored = not made.left_out
                raise kind(message, hint=error.hint, restored=restored) from error
            raise kind(f"{message}; and going back failed: {trouble}", restored=False) from error
        except BaseException:
            # A bug of ours must not leave half a firewall either.
            self._roll_back(made)
            raise

    def _run(
        self, made: _Change, plan: XPlan, wanted: Sequence[XTable], rehearsed: Tables
    ) -> ApplyResult:
        made.step = "load sets"
        # What is in the snapshot may differ from now on, also when loading fails half way.
        made.changed_sets = tuple(made.sets.saved)
        with named_sets(self._runner, plan):
            loaded = self._sets.load(plan.sets)
        made.changed_sets = loaded.changed
        made.step = "change rules"
        edits = []
        for table in wanted:
            key = (table.family, table.name)
            edit = change(table, made.tables.get(key), rehearsed.get(key), made.adoption)
            edits.append((table.family, edit))
        load_edits(self._tools, edits, made.is_live)
        made.step = "read back"
        live = self._existing()
        found = [text for table in wanted for text in _differences(table, live)]
        if found:
            raise BackendError("; ".join(found))
        notes = [*loaded.notes, *(note for _, edit in edits for note in edit.notes)]
        notes += _lost_counters(made.tables, live)
        notes += drop_obsolete_sets(self._sets, plan, made.leave)
        names = tuple(f"{table.family} {table.name}" for table in wanted)
        return ApplyResult(names, loaded.changed, tuple(notes))

    def _roll_back(self, made: _Change) -> str | None:
        """Return to the snapshot: rules first, since they may use new sets. None if it worked."""
        try:
            back = WayBack(self._tools, made.tables, made.touched, made.adoption)
            made.left_out = back.go(made.is_live)
            created = [key for key in made.touched if key not in made.tables]
            drop_empty_tables(self._runner, created)
            saved = {name: made.sets.saved[name] for name in made.changed_sets}
            self._sets.restore(SetSnapshot(saved))
        except BackendError as error:
            return error.message
        return None


def _refuse_faults(plan: XPlan) -> None:
    faults = plan_faults(plan)
    if faults:
        raise BackendError("\n".join(faults))


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


def _differences(wanted: XTable, live: Tables) -> list[str]:
    table = live.get((wanted.family, wanted.name))
    if table is not None:
        return differences(wanted, table)
    return [f"{wanted.family} {wanted.name}: the table is missing"] if wanted.chains else []


def _lost_counters(before: Tables, after: Tables) -> list[str]:
    """Say where rules that stayed count anew: ip6tables-nft 1.8.9 drops what -c gives."""
    counted = {
        (family, rule.comment): rule.packets
        for (family, _), table in after.items()
        for rule in table.rules
        if rule.is_ours
    }
    return [
        f"{PROGRAM[family]}: this version sets no counters: rules in changed chains of {family} "
        f"{name} count from 0 again"
        for (family, name), table in before.items()
        if any(
            rule.packets > counted.get((family, rule.comment), rule.packets)
            for rule in table.rules
            if rule.is_ours
        )
    ]
