"""Makes a ruleset live: rules and sets through a backend, then sysctls, then the record of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.files import require_writable
from sipfw.deploy.state import Applied, read_applied, write_applied
from sipfw.deploy.sysctls import apply_sysctls, remove_sysctls
from sipfw.deploy.targets import Options, Target, installed_backends, target
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.deploy.files import Layout
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
    require_writable(layout)
    change = chosen.apply(ruleset, options)
    expectation = change.expectation
    warnings = (
        *change.warnings,
        *_recorded(layout, Applied(expectation, source, chosen.name)),
        *_sysctls(ruleset, layout),
    )
    rules = sum(len(chain.rules) for chain in expectation.chains) + len(expectation.jumps)
    return Outcome(
        rules, len(expectation.sets), tuple(expectation.families()), change.notes, warnings
    )


def _recorded(layout: Layout, applied: Applied) -> list[Diagnostic]:
    """Write the record; the firewall is live already, so a full disk is only a warning."""
    try:
        write_applied(layout, applied)
    except BackendError as error:
        message = f"the firewall is live, but verify will not know it: {error}"
        return [Diagnostic(message, severity=Severity.WARNING)]
    return []


def _sysctls(ruleset: Ruleset, layout: Layout) -> list[Diagnostic]:
    try:
        return apply_sysctls(ruleset.sysctls, layout)
    except BackendError as error:
        message = f"the firewall is live, but the kernel settings are not kept: {error}"
        return [Diagnostic(message, "conntrack", severity=Severity.WARNING)]


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
    backends = installed_backends() if before is None else [before.backend]
    notes = tuple(note for name in backends for note in target(name).remove(options))
    warnings = remove_sysctls(layout)
    layout.applied.unlink(missing_ok=True)
    return Outcome(0, 0, (), notes, tuple(warnings))
