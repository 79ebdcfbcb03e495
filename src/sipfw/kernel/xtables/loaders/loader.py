"""What the engine of iptables leaves to a loader, and what it hands to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sipfw.kernel.xtables.libiptc.limits import OUR_TABLES
from sipfw.lower.xtables import XTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from sipfw.kernel.xtables.edit import Adoption
    from sipfw.kernel.xtables.ipset import Ipsets
    from sipfw.kernel.xtables.tools import TableKey, Tables
    from sipfw.kernel.xtables.way_back import RestoreTools
    from sipfw.lower.xtables import XPlan


@dataclass(frozen=True, slots=True)
class Prepared:
    """What of a plan this host can hold, notes on the rest, and how the kernel lists it.

    `rehearsed` is empty where that is not known.
    """

    plan: XPlan
    notes: tuple[str, ...] = ()
    rehearsed: Tables = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """The tables to change: as wanted, as they are, and as the kernel lists the wanted ones."""

    wanted: tuple[XTable, ...]
    before: Tables
    rehearsed: Tables
    adoption: Adoption
    reposition: bool


class Loader(Protocol):
    """One way to bring tables to what is wanted.

    `legacy` tables are put back rule for rule, rules of somebody else in our chains included.
    """

    @property
    def legacy(self) -> bool:
        """Whether these are the tables of legacy x_tables."""
        ...

    @property
    def tools(self) -> RestoreTools:
        """The programs that list these tables, and put them back."""
        ...

    def locked(self) -> AbstractContextManager[Loader]:
        """Give a loader for a caller that holds the xtables lock."""
        ...

    def check(self, plan: XPlan, sets: Ipsets) -> None:
        """Raise BackendError for what this host cannot do of the plan; change nothing."""
        ...

    def prepare(self, plan: XPlan, sets: Ipsets) -> Prepared:
        """Return what can be loaded. Raises BackendError for a lack, and for a missing set."""
        ...

    def to_change(
        self, wanted: Sequence[XTable], existing: Tables, adoption: Adoption
    ) -> tuple[XTable, ...]:
        """Add to the wanted tables those with something to take out or over."""
        ...

    def load(self, job: Job, live: Callable[[], object]) -> list[str]:
        """Make the tables as wanted; return notes. Calls `live` as soon as one of them is in.

        On BackendError some tables may be in: the caller goes back.
        """
        ...

    def remarks(self, before: Tables, after: Tables) -> list[str]:
        """Return notes on what the load has lost."""
        ...

    def tidy(self, tables: Sequence[TableKey]) -> None:
        """Take out those of these tables that hold nothing any more."""
        ...


def with_emptied(
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
