"""What each layer did: packets dropped and let through, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.lower.xtables import Family
    from sipfw.monitor.reading import Growth
    from sipfw.monitor.report import RuleReport


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer in both families.

    `share` is the part of all dropped packets that this layer dropped, 0 to 1; `rate` is dropped
    packets per second since the earlier reading, None without one. A packet that two hooks let
    through is counted as passed in both; it is dropped only once.
    """

    layer: str
    dropped: int
    dropped_bytes: int
    passed: int
    passed_bytes: int
    share: float
    rate: float | None = None
    passed_rate: float | None = None


def summarise(
    rules: Iterable[RuleReport], growth: Growth | None = None
) -> tuple[LayerSummary, ...]:
    """Return the layers in packet order; those that decide nothing are left out."""
    grown = {} if growth is None else growth.rules
    sums: dict[str, list[int]] = {}
    for rule in rules:
        if rule.action not in {"drop", "pass"}:
            continue
        layer = sums.setdefault(rule.layer, [0] * 6)
        first = 0 if rule.action == "drop" else 2
        layer[first] += rule.packets
        layer[first + 1] += rule.bytes
        layer[4 + first // 2] += _grown(rule, grown)
    dropped = sum(layer[0] for layer in sums.values())
    seconds = None if growth is None else growth.seconds
    return tuple(
        LayerSummary(
            layer=name,
            dropped=layer[0],
            dropped_bytes=layer[1],
            passed=layer[2],
            passed_bytes=layer[3],
            share=layer[0] / dropped if dropped else 0.0,
            rate=layer[4] / seconds if seconds else None,
            passed_rate=layer[5] / seconds if seconds else None,
        )
        for name, layer in sums.items()
    )


def _grown(rule: RuleReport, grown: Mapping[tuple[Family, str, str], tuple[int, int]]) -> int:
    return sum(grown.get((family, rule.chain, rule.id), (0, 0))[0] for family in rule.counts)
