"""Which rules of a report to show: layers, one family, only what counted, the busiest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.monitor.report import Count, RuleReport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.lower.xtables import Family
    from sipfw.monitor.reading import Growth


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show; empty `layers` are all of them, `top` without a number shows every rule."""

    layers: frozenset[str] = frozenset()
    family: Family | None = None
    hits: bool = False
    top: int | None = None

    def scope(self, rules: Iterable[RuleReport]) -> list[RuleReport]:
        """Return the rules of the layers and the family, in packet order."""
        kept = [rule for rule in rules if not self.layers or rule.layer in self.layers]
        if self.family is None:
            return kept
        return [
            replace(rule, counts={self.family: rule.counts[self.family]})
            for rule in kept
            if self.family in rule.counts
        ]

    def shown(self, rules: Iterable[RuleReport]) -> list[RuleReport]:
        """Return those of a scope to list one by one: in packet order, or the busiest first."""
        kept = [rule for rule in rules if rule.packets or not self.hits]
        if self.top is None:
            return kept
        busy = sorted((rule for rule in kept if rule.packets), key=lambda rule: -rule.packets)
        return busy[: self.top]


def grown(rules: Iterable[RuleReport], growth: Growth) -> list[RuleReport]:
    """Return the rules with what they counted since the earlier reading."""
    return [
        replace(
            rule,
            counts={
                family: None
                if count is None
                else Count(*growth.rules.get((family, rule.chain, rule.id), (0, 0)))
                for family, count in rule.counts.items()
            },
        )
        for rule in rules
    ]
