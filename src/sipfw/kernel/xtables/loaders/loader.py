"""What the engine of iptables leaves to a loader, and what it hands to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from sipfw.kernel.xtables.ipset import Ipsets
    from sipfw.kernel.xtables.standing import Adoption
    from sipfw.kernel.xtables.tools import TableKey, Tables
    from sipfw.kernel.xtables.way_back import Tools
    from sipfw.lower.xtables import XPlan, XTable


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
    """The tables to change, as wanted and as they are."""

    ready: Prepared
    wanted: tuple[XTable, ...]
    before: Tables
    adoption: Adoption
    reposition: bool


class Loader(Protocol):
    """One way to bring tables to what is wanted."""

    @property
    def tools(self) -> Tools:
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

    def elsewhere(self, adoption: Adoption) -> Adoption:
        """Say what of an adoption holds for tables that the plan does not use."""
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
