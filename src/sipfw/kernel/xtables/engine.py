"""What both iptables engines share: the way back, signals that wait, foreign chains, sets."""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sipfw.errors import BackendError
from sipfw.host.runner import MissingProgramError
from sipfw.kernel.lacking import LackingError
from sipfw.kernel.xtables.edit import Adoption, TableEdit, undo
from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets
from sipfw.kernel.xtables.libiptc.limits import referenced_sets
from sipfw.kernel.xtables.parts import missing_sets
from sipfw.lower.xtables import Family
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.tools import TableKey, Tables
    from sipfw.lower.xtables import XPlan, XTable

# The chains of the script that operators paste from guides, usually into table filter.
GUIDE_CHAINS = ("SIP_TRUSTED", "SIP_SCANNER_BLOCK", "SIP_RATE_LIMIT")

# How often a program that does not wait for us may come between our listing and our load.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What an apply or remove did; `notes` is for the operator's eyes."""

    tables: tuple[str, ...]
    sets: tuple[str, ...]
    notes: tuple[str, ...]


class RestoreTools(Protocol):
    """The iptables-save and -restore programs of one flavour."""

    def existing(self, family: Family) -> Tables:
        """Return the tables that exist in this network namespace, without creating any."""
        ...

    def test(self, family: Family, text: str) -> None:
        """Have iptables-restore parse the text and change nothing."""
        ...

    def load(self, family: Family, text: str) -> None:
        """Load the text with its counters, flushing only the user chains that it declares."""
        ...


def load_edits(
    tools: RestoreTools,
    edits: Sequence[tuple[Family, TableEdit]],
    live: Callable[[], object] | None = None,
) -> None:
    """Have both families' texts parsed, then load them; `live` is called as soon as one is in."""
    texts = {
        family: "".join(edit.text() for each, edit in edits if each is family) for family in Family
    }
    texts = {family: text for family, text in texts.items() if text}
    for family, text in texts.items():
        tools.test(family, text)
    for family, text in texts.items():
        tools.load(family, text)
        if live is not None:
            live()


@dataclass(frozen=True, slots=True)
class WayBack:
    """The tables as they were, and what of them a change may have touched."""

    tools: RestoreTools
    tables: Tables
    touched: tuple[TableKey, ...]
    adoption: Adoption
    legacy: bool = False

    def go(self, live: Callable[[], object]) -> list[str]:
        """Take our chains and jumps back to `tables`; return notes on what could not be put back.

        Rules of others stay as they are now. Looks again after each load, since one of them may
        have come between; the load then fails, or a place is another one. Calls `live` before the
        first load.
        """
        notes: dict[str, None] = {}
        for attempt in range(ATTEMPTS):
            edits = self._edits()
            notes |= dict.fromkeys(note for _, edit in edits for note in edit.notes)
            if not any(edit.lines for _, edit in edits):
                return [*notes]
            live()
            try:
                load_edits(self.tools, edits)
            except BackendError:
                if attempt == ATTEMPTS - 1:
                    raise
        still = [f"{family} {edit.name}" for family, edit in self._edits() if edit.lines]
        if still:
            raise BackendError(f"these tables differ from before: {', '.join(still)}")
        return [*notes]

    def _edits(self) -> list[tuple[Family, TableEdit]]:
        now = self.tools.existing(Family.IP) | self.tools.existing(Family.IP6)
        return [
            (
                key[0],
                undo(key, self.tables.get(key), now.get(key), self.adoption, legacy=self.legacy),
            )
            for key in self.touched
        ]


@contextmanager
def signals_later() -> Iterator[None]:
    """Hold back what a lost terminal or an impatient operator sends, also from child processes.

    The default action would end us between two commits. Every child has a deadline, so the wait
    is bounded.
    """
    held = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def require_sets(sets: Ipsets, plan: XPlan) -> None:
    """Refuse a missing set: libxtables may crash on it, and only after other sets changed."""
    wanted = {name for table in plan.tables for name in referenced_sets(table)}
    missing = wanted - {item.name for item in plan.sets}
    if missing:
        missing -= {item.name for item in sets.list_sets()}
    if missing:
        raise BackendError(f"rules use sets that do not exist: {', '.join(sorted(missing))}")


def drop_obsolete_sets(sets: Ipsets, plan: XPlan, leave: Collection[str] = ()) -> list[str]:
    """Destroy sets of ours that the plan does not use; return a note for each that stays.

    Those in `leave` have a name of ours and are somebody else's.
    """
    wanted = {item.name for item in plan.sets} | {*leave}

    def obsolete() -> list[str]:
        names = [item.name for item in sets.list_if_installed()]
        return [name for name in names if name.startswith(OUR_PREFIX) and name not in wanted]

    notes = []
    with suppress(BackendError):
        sets.destroy(obsolete())
    # One that a rule uses stops the ones behind it, so those left are asked for one by one.
    for name in obsolete():
        try:
            sets.destroy([name], patient=False)
        except BackendError as error:
            notes.append(f"set {name} kept: {error.message}")
    return notes


def refuse_strange_sets(plan: XPlan, leave: Collection[str]) -> None:
    """Refuse to swap somebody else's set out."""
    taken = sorted({item.name for item in plan.sets} & {*leave})
    if taken:
        raise BackendError(
            f"not made by sipfw: set {', '.join(taken)}",
            hint="rename or destroy it; `sipfw apply --adopt` takes it over",
        )


def refuse_foreign(existing: Tables, wanted: Sequence[XTable], names: Collection[str]) -> None:
    """Refuse to live beside a pasted script's chains: its limits would go on hurting peers.

    Chains that collide with ours in their own table are found by whoever edits that table, since
    an empty one matters only where something jumps to it.
    """
    planned = {(t.family, t.name, chain.name) for t in wanted for chain in t.chains}
    found = [
        f"chain {family} {table.name} {chain.name} ({pluralize(len(chain.rules), 'rule')})"
        for (family, _), table in existing.items()
        for chain in table.chains
        if chain.name in names
        and chain.rules
        and not chain.is_ours
        and (family, table.name, chain.name) not in planned
    ]
    if found:
        raise BackendError(
            f"not made by sipfw: {', '.join(found)}",
            hint="another script put these chains here; --adopt replaces them and the jumps to "
            "them and leaves every other rule in place",
        )
