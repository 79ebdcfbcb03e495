"""Would everybody pass unjudged? Asked before a ruleset goes live."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.diagnostics import Diagnostic, Location, Severity
from sipfw.errors import BackendError
from sipfw.host.proc_net import ways_out
from sipfw.host.runner import SubprocessRunner
from sipfw.ruleset.match import Interface

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Rule


def require_no_opening(
    ruleset: Ruleset, *, force: bool = False, outside: Collection[str] | None = None
) -> list[Diagnostic]:
    """Refuse to take the interface to the Internet for the one of a container.

    `outside` are the interfaces of the default routes, which are looked up where it is None.
    Raises BackendError; with `force` that is a warning.
    """
    rules = list(_behind(ruleset))
    if not rules:
        return []
    names_outside = sorted(_outside() if outside is None else outside)
    found = [
        Diagnostic(
            f"{name} is where the default route leads, so the whole Internet would count as the "
            "switch's own container and never be limited; name the bridge of the container",
            rule.origin.field,
            Location(rule.origin.file, rule.origin.line),
        )
        for rule, match in rules
        for name in names_outside
        if match.fits(name)
    ]
    if found and not force:
        raise BackendError("\n".join(str(item) for item in found), hint="or apply with --force")
    return [
        Diagnostic(f"FORCED: {item.message}", item.field, item.location, Severity.WARNING)
        for item in found
    ]


def names_of_containers(ruleset: Ruleset) -> list[Interface]:
    """Return the interfaces behind which a switch runs, as the policy says."""
    return [match for _, match in _behind(ruleset)]


def _outside() -> frozenset[str]:
    runner = SubprocessRunner()
    tables = []
    for family in ("-4", "-6"):
        # Without the program, what /proc says has to do.
        with suppress(BackendError):
            tables.append(runner.run(["ip", family, "route", "show", "table", "all"]).stdout)
    return ways_out(table="".join(tables))


def _behind(ruleset: Ruleset) -> Iterator[tuple[Rule, Interface]]:
    for chain in ruleset.chains:
        if chain.name == names.PREROUTING:
            for rule in chain.rules:
                for match in rule.matches:
                    if isinstance(match, Interface) and match.name != "lo":
                        yield rule, match
