"""Makes a ruleset live: rules and sets through a backend, then sysctls, then the record of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.backends.iptables import IptablesBackend
from sipfw.backends.iptables_reader import IptablesReader
from sipfw.backends.runner import SubprocessRunner
from sipfw.deploy.state import Applied, write_applied
from sipfw.deploy.sysctls import apply_sysctls, remove_sysctls
from sipfw.errors import BackendError
from sipfw.lower.xtables import Family, XPlan
from sipfw.verify.expectation import Expectation, expect, with_lines, without_families

if TYPE_CHECKING:
    from sipfw.deploy.files import Layout
    from sipfw.diagnostics import Diagnostic
    from sipfw.ruleset.model import Ruleset


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply."""

    adopt: bool = False
    lock_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply did."""

    rules: int
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]


def require_root() -> None:
    """Raise BackendError for anybody but root: netfilter would refuse later and less clearly."""
    if os.geteuid() != 0:
        raise BackendError("only root may change the firewall", hint="use sudo")


def apply(ruleset: Ruleset, plan: XPlan, source: str, layout: Layout, options: Options) -> Outcome:
    """Make it live. On failure the old firewall is in force and BackendError says why."""
    require_root()
    result = IptablesBackend(SubprocessRunner()).apply(
        plan, adopt=options.adopt, lock_seconds=options.lock_seconds
    )
    expectation = expect(ruleset, plan)
    present = {table.family for table in plan.tables if _committed(result.tables, table.family)}
    expectation = without_families(expectation, set(Family) - present)
    live = IptablesReader(SubprocessRunner()).live(
        chain_names(expectation), static_sets(expectation)
    )
    write_applied(layout, Applied(with_lines(expectation, live), source))
    warnings = apply_sysctls(ruleset.sysctls, layout)
    rules = sum(len(chain.rules) for chain in expectation.chains) + len(expectation.jumps)
    return Outcome(rules, tuple(expectation.families()), result.notes, tuple(warnings))


def _committed(tables: tuple[str, ...], family: Family) -> bool:
    return any(name.split()[0] == family.value for name in tables)


def rehearse(plan: XPlan, options: Options) -> str:
    """Check that this host can run the plan and say what would be loaded; change nothing."""
    require_root()
    IptablesBackend(SubprocessRunner()).check(plan, adopt=options.adopt)
    chains = sum(len(table.chains) for table in plan.tables)
    rules = sum(len(chain.rules) for table in plan.tables for chain in table.chains)
    return f"would load {rules} rules in {chains} chains and {len(plan.sets)} sets"


def remove(layout: Layout, options: Options) -> Outcome:
    """Take out everything of ours: rules, sets, sysctls and the record."""
    require_root()
    result = IptablesBackend(SubprocessRunner()).remove(lock_seconds=options.lock_seconds)
    warnings = remove_sysctls(layout)
    layout.applied.unlink(missing_ok=True)
    return Outcome(0, (), result.notes, tuple(warnings))


def chain_names(expectation: Expectation) -> frozenset[str]:
    """Name the chains that should be live."""
    return frozenset(chain.name for chain in expectation.chains)


def static_sets(expectation: Expectation) -> frozenset[str]:
    """Name the sets whose content the policy decides."""
    return frozenset(item.name for item in expectation.sets if item.elements is not None)
