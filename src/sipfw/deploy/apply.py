"""Makes a ruleset live: rules and sets through a backend, then sysctls, then the record of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.state import Applied, read_applied, write_applied
from sipfw.deploy.sysctls import apply_sysctls, remove_sysctls
from sipfw.deploy.targets import Options, Target, target
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.deploy.files import Layout
    from sipfw.diagnostics import Diagnostic
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply did."""

    rules: int
    sets: int
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]


def require_root() -> None:
    """Raise BackendError for anybody but root: netfilter would refuse later and less clearly."""
    if os.geteuid() != 0:
        raise BackendError("only root may see or change the firewall", hint="use sudo")


def apply(
    ruleset: Ruleset, chosen: Target, source: str, layout: Layout, options: Options
) -> Outcome:
    """Make it live. On failure the old firewall is in force and BackendError says why."""
    require_root()
    before = read_applied(layout)
    if before is not None and before.backend != chosen.name:
        raise BackendError(
            f"sipfw is live in {before.backend} already",
            hint=f"apply with --backend {before.backend}, or sipfw remove first",
        )
    change = chosen.apply(ruleset, options)
    expectation = change.expectation
    write_applied(layout, Applied(expectation, source, chosen.name))
    warnings = (*change.warnings, *apply_sysctls(ruleset.sysctls, layout))
    rules = sum(len(chain.rules) for chain in expectation.chains) + len(expectation.jumps)
    return Outcome(
        rules, len(expectation.sets), tuple(expectation.families()), change.notes, warnings
    )


def rehearse(ruleset: Ruleset, chosen: Target, options: Options) -> str:
    """Check that this host can run the ruleset and say what would be loaded; change nothing."""
    require_root()
    chosen.check(ruleset, options)
    expectation = chosen.expectation(ruleset)
    rules = sum(len(chain.rules) for chain in expectation.chains)
    return (
        f"would load {rules} rules in {len(expectation.chains)} chains and "
        f"{len(expectation.sets)} sets into {chosen.name}"
    )


def remove(layout: Layout, options: Options) -> Outcome:
    """Take out everything of ours: rules, sets, sysctls and the record."""
    require_root()
    before = read_applied(layout)
    backend = "iptables" if before is None else before.backend
    notes = target(backend).remove(options)
    warnings = remove_sysctls(layout)
    layout.applied.unlink(missing_ok=True)
    return Outcome(0, 0, (), notes, tuple(warnings))
