"""Whose the chains of one table are, and what becomes of those that are not wanted.

Ours is what carries our comment, nothing else. How a chain was read is nobody's business here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from sipfw.kernel.xtables.carried_counters import carried_by

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sipfw.kernel.xtables.carried_counters import Counters
    from sipfw.kernel.xtables.libiptc.table import HeldChain, TableEntry
    from sipfw.kernel.xtables.save_text import SavedChain, SavedRule
    from sipfw.lower.xtables import XChain, XTable

# As a listing shows it, or as it is in a handle of libiptc.
Chain: TypeAlias = "SavedChain | HeldChain"
C = TypeVar("C", "SavedChain", "HeldChain")

# The chains of the script that operators paste from guides, usually into table filter.
GUIDE_CHAINS = ("SIP_TRUSTED", "SIP_SCANNER_BLOCK", "SIP_RATE_LIMIT")


@dataclass(frozen=True, slots=True)
class Adoption:
    """Which chains of somebody else may be taken over; none without `--adopt`."""

    chains: frozenset[str] = frozenset()

    def covers(self, chain: Chain) -> bool:
        """Tell whether a chain is somebody else's and may be taken over."""
        return chain.policy is None and not chain.is_ours and chain.name in self.chains


@dataclass(frozen=True, slots=True)
class Leaving(Generic[C]):
    """A chain that is not wanted any more, and what keeps it: rules in it, and what leads to it."""

    chain: C
    foreign: int
    callers: list[str]

    @property
    def goes(self) -> bool:
        """Whether nothing keeps it."""
        return not self.foreign and not self.callers

    def notes(self, at: str) -> list[str]:
        """Say why it stays; `at` is family and table."""
        if self.goes:
            return []
        why = (
            f"kept, it holds {self.foreign} foreign rules"
            if self.foreign
            else f"kept empty, foreign rules in {', '.join(self.callers)} jump to it"
        )
        return [f"{at}: chain {self.chain.name} {why}"]


@dataclass(frozen=True, slots=True)
class ChainSteps(Generic[C]):
    """What brings the chains of a table to what is wanted: taken over, written, emptied or gone.

    Each chain that is written comes with the counters of its rules.
    """

    taken: dict[str, C]
    written: list[tuple[XChain, list[Counters]]]
    left: list[Leaving[C]]


def chain_steps(
    wanted: XTable, chains: Mapping[str, C], adoption: Adoption, written: Sequence[XChain]
) -> ChainSteps[C]:
    """Return the steps; `written` are the wanted chains that are not as wanted already."""
    names = {chain.name for chain in wanted.chains}
    taken = {name: chain for name, chain in chains.items() if adoption.covers(chain)}
    gone = [c for c in chains.values() if c.name not in names and (c.is_ours or c.name in taken)]
    counted = []
    for chain in written:
        before = chains.get(chain.name)
        counted.append((chain, carried_by(chain.rules, () if before is None else before.rules)))
    left = leaving(chains.values(), gone, taken, {chain.name for chain in written})
    return ChainSteps(taken, counted, left)


def foreign_chains(wanted: XTable, chains: Collection[Chain]) -> list[str]:
    """Return chains with a wanted name that somebody else filled or jumps to."""
    names = {chain.name for chain in wanted.chains}
    return [
        chain.name
        for chain in chains
        if chain.name in names
        and not chain.is_ours
        # A chain of ours that somebody emptied has callers of ours only.
        and (chain.rules or _foreign_callers(chains, chain.name, ()))
    ]


def leaving(
    chains: Collection[C], gone: Collection[C], taken: Collection[str], rewritten: Collection[str]
) -> list[Leaving[C]]:
    """Say of each chain in `gone` what keeps it.

    Those in `taken` are emptied with all that somebody put there, and every jump to them is cut;
    what stands in one of the `rewritten` leads nowhere either.
    """
    foreign = {
        chain.name: 0 if chain.name in taken else sum(_stays(rule, taken) for rule in chain.rules)
        for chain in gone
    }
    emptied = {name for name, number in foreign.items() if not number} | {*rewritten}
    return [
        Leaving(
            chain,
            foreign[chain.name],
            [] if chain.name in taken else _foreign_callers(chains, chain.name, emptied),
        )
        for chain in gone
    ]


def _stays(rule: SavedRule | TableEntry, cut: Collection[str]) -> bool:
    return not rule.is_ours and rule.target not in cut


def _foreign_callers(chains: Iterable[Chain], name: str, emptied: Collection[str]) -> list[str]:
    return [
        chain.name
        for chain in chains
        if chain.name not in emptied
        and any(rule.target == name and not rule.is_ours for rule in chain.rules)
    ]
