"""What a change of iptables is refused for before it touches anything."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.runner import MissingProgramError
from sipfw.kernel.lacking import LackingError
from sipfw.kernel.xtables.libiptc.limits import plan_faults, referenced_sets
from sipfw.kernel.xtables.parts import missing_sets
from sipfw.kernel.xtables.standing import GUIDE_CHAINS, foreign_chains
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.ipset import Ipsets
    from sipfw.kernel.xtables.tools import Tables
    from sipfw.lower.xtables import XPlan, XTable

ADOPT_HINT = "apply with --adopt to take it over"


def refuse_faults(plan: XPlan) -> None:
    """Refuse what must not reach libxtables."""
    faults = plan_faults(plan)
    if faults:
        raise BackendError("\n".join(faults))


def refuse_strange_sets(plan: XPlan, leave: Collection[str]) -> None:
    """Refuse to swap somebody else's set out."""
    taken = sorted({item.name for item in plan.sets} & {*leave})
    if taken:
        raise BackendError(
            f"not made by sipfw: set {', '.join(taken)}",
            hint="rename or destroy it; `sipfw apply --adopt` takes it over",
        )


def refuse_foreign(existing: Tables, wanted: Sequence[XTable]) -> None:
    """Refuse chains that somebody else made, unless nothing is wanted.

    A pasted script's chains in any table: its limits would go on hurting peers. And those that
    collide with ours in their own table, where an empty one matters if something jumps to it.
    """
    if not wanted:
        return
    planned = {(t.family, t.name, chain.name) for t in wanted for chain in t.chains}
    pasted = [
        f"chain {family} {table.name} {chain.name} ({pluralize(len(chain.rules), 'rule')})"
        for (family, _), table in existing.items()
        for chain in table.chains
        if chain.name in GUIDE_CHAINS
        and chain.rules
        and not chain.is_ours
        and (family, table.name, chain.name) not in planned
    ]
    if pasted:
        raise BackendError(
            f"not made by sipfw: {', '.join(pasted)}",
            hint="another script put these chains here; --adopt replaces them and the jumps to "
            "them and leaves every other rule in place",
        )
    colliding = [
        f"chain {table.family} {table.name} {name}"
        for table in wanted
        if (found := existing.get((table.family, table.name))) is not None
        for name in foreign_chains(table, found.chains)
    ]
    if colliding:
        raise BackendError(f"not made by sipfw: {', '.join(colliding)}", hint=ADOPT_HINT)


def require_sets(sets: Ipsets, plan: XPlan) -> None:
    """Refuse a missing set: libxtables may crash on it, and only after other sets changed."""
    wanted = {name for table in plan.tables for name in referenced_sets(table)}
    missing = wanted - {item.name for item in plan.sets}
    if missing:
        missing -= {item.name for item in sets.list_sets()}
    if missing:
        raise BackendError(f"rules use sets that do not exist: {', '.join(sorted(missing))}")


@contextmanager
def named_sets(runner: Runner, plan: XPlan) -> Iterator[None]:
    """Name what the kernel lacks where working with sets failed for that reason."""
    try:
        yield
    except MissingProgramError:
        raise
    except BackendError as error:
        lacks = missing_sets(runner, plan)
        if lacks:
            raise LackingError(lacks) from error
        raise
