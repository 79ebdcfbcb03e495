"""What is live in legacy iptables, for reports and for the comparison with what was wanted.

Pure data made from iptables-save text; runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compare.compare import not_as_wanted

if TYPE_CHECKING:
    from sipfw.kernel.xtables.ipset import LiveSet
    from sipfw.kernel.xtables.save_text import SavedChain, SavedRule
    from sipfw.kernel.xtables.tools import Tables
    from sipfw.lower.xtables import Family, XTable


@dataclass(frozen=True, slots=True)
class LiveJump:
    """One of our rules in a built-in chain; `before` are the rules that see packets first."""

    family: Family
    table: str
    hook: str
    position: int
    rule: SavedRule
    before: tuple[SavedRule, ...]


@dataclass(frozen=True, slots=True)
class LiveRuleset:
    """All tables that exist, foreign content included, and our sets."""

    tables: Tables
    sets: tuple[LiveSet, ...]

    def our_chains(self) -> tuple[tuple[Family, str, SavedChain], ...]:
        """Return (family, table, chain) for every chain that carries our rules."""
        return tuple(
            (family, name, chain)
            for (family, name), table in self.tables.items()
            for chain in table.chains
            if chain.is_ours
        )

    def our_jumps(self) -> tuple[LiveJump, ...]:
        """Return our rules in built-in chains; positions count from 1 as iptables does."""
        return tuple(
            LiveJump(family, name, chain.name, index + 1, rule, chain.rules[:index])
            for (family, name), table in self.tables.items()
            for chain in table.chains
            if chain.policy is not None
            for index, rule in enumerate(chain.rules)
            if rule.is_ours
        )


def differences(wanted: XTable, tables: Tables) -> list[str]:
    """Return how a live table differs from the wanted one in chains, rule order and jumps."""
    at = f"{wanted.family} {wanted.name}"
    live = tables.get((wanted.family, wanted.name))
    if live is None:
        return [f"{at}: the table is missing"] if wanted.chains else []
    found = []
    expected = {chain.name: [rule.comment for rule in chain.rules] for chain in wanted.chains}
    held = {chain.name: [rule.comment for rule in chain.rules] for chain in live.chains}
    for name in not_as_wanted(expected, held):
        wrong = "does not hold the wanted rules in their order" if name in held else "is missing"
        found.append(f"{at}: chain {name} {wrong}")
    for chain in live.chains:
        if chain.is_ours and chain.name not in expected:
            found.append(f"{at}: chain {chain.name} should be gone")
        if chain.policy is not None:
            jumps = [jump.rule for jump in wanted.jumps if jump.hook == chain.name]
            want = [(rule.comment, rule.target and rule.target.name) for rule in jumps]
            if [(rule.comment, rule.target) for rule in chain.rules if rule.is_ours] != want:
                found.append(f"{at}: {chain.name} does not hold the wanted jumps")
    return found
