"""Loads tables of iptables-nft: one restore per family, each table of it one transaction.

The plan is loaded in a scratch namespace first, which shows how the kernel lists it: what reads the
same already is left alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.lacking import LackingError
from sipfw.kernel.namespace import ProgramRun, run_in_scratch
from sipfw.kernel.nft.empty_tables import drop_empty_tables
from sipfw.kernel.xtables.edit import change
from sipfw.kernel.xtables.loaders.loader import Prepared
from sipfw.kernel.xtables.nft_tools import PROGRAM, RESTORERS, NftFlavourTools, explained
from sipfw.kernel.xtables.parts import missing_parts
from sipfw.kernel.xtables.refusals import named_sets, require_sets
from sipfw.kernel.xtables.save_text import parse_save
from sipfw.kernel.xtables.way_back import load_edits
from sipfw.lower.xtables import Family
from sipfw.render.restore import restore_text
from sipfw.render.xtables_text import set_create_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.ipset import Ipsets
    from sipfw.kernel.xtables.loaders.loader import Job
    from sipfw.kernel.xtables.standing import Adoption
    from sipfw.kernel.xtables.tools import TableKey, Tables
    from sipfw.lower.xtables import XPlan


@dataclass(frozen=True, slots=True)
class RestoreLoader:
    """A loader for the nf_tables flavour."""

    runner: Runner
    tools: NftFlavourTools

    def locked(self) -> AbstractContextManager[RestoreLoader]:
        """Give itself: these programs take no lock."""
        return nullcontext(self)

    def check(self, plan: XPlan, sets: Ipsets) -> None:
        """Load the plan where it hurts nobody, and ask for ipset."""
        require_sets(sets, plan)
        if plan.sets:
            with named_sets(self.runner, plan):
                sets.list_sets()
        self._rehearse(plan)

    def prepare(self, plan: XPlan, sets: Ipsets) -> Prepared:
        """Load the plan where it hurts nobody."""
        require_sets(sets, plan)
        return Prepared(plan, rehearsed=self._rehearse(plan))

    def elsewhere(self, adoption: Adoption) -> Adoption:
        """Take over chains of every name in every table."""
        return adoption

    def load(self, job: Job, live: Callable[[], object]) -> list[str]:
        """Load the difference of each table."""
        edits = []
        for table in job.wanted:
            key = (table.family, table.name)
            edit = change(
                table,
                job.before.get(key),
                job.ready.rehearsed.get(key),
                job.adoption,
                reposition=job.reposition,
            )
            edits.append((table.family, edit))
        load_edits(self.tools, edits, live)
        return [note for _, edit in edits for note in edit.notes]

    def remarks(self, before: Tables, after: Tables) -> list[str]:
        """Say where rules that stayed count anew: ip6tables-nft 1.8.9 drops what -c gives."""
        counted = {
            (family, rule.comment): rule.packets
            for (family, _), table in after.items()
            for rule in table.rules
            if rule.is_ours
        }
        return [
            f"{PROGRAM[family]}: this version sets no counters: rules in changed chains of "
            f"{family} {name} count from 0 again"
            for (family, name), table in before.items()
            if any(
                rule.packets > counted.get((family, rule.comment), rule.packets)
                for rule in table.rules
                if rule.is_ours
            )
        ]

    def tidy(self, tables: Sequence[TableKey]) -> None:
        """Take out empty tables, which nf_tables keeps otherwise."""
        drop_empty_tables(self.runner, tables)

    def _rehearse(self, plan: XPlan) -> Tables:
        """Load the plan where it hurts nobody and return how the kernel lists it.

        Empty where no scratch namespace can be made: then the host's own kernel is the first judge.
        """
        texts = {family: restore_text(plan, family) for family in Family}
        sets = "".join(f"{set_create_line(item)}\n" for item in plan.sets)
        steps = [ProgramRun(("ipset", "restore"), sets)] if sets else []
        steps += [ProgramRun((RESTORERS[family], "--noflush"), texts[family]) for family in Family]
        steps += [ProgramRun((f"{PROGRAM[family]}-save", "-c")) for family in Family]
        done = run_in_scratch(self.runner, steps) if plan.tables else None
        if done is None:
            return {}
        if done[-1].returncode != 0:
            lacks = missing_parts(self.runner, plan, RESTORERS)
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
