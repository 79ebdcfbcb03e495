"""The finding of one `verify`: counters by layer, sets, conntrack, sysctls and drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compare.compare import compare
from sipfw.compare.drift import Drift, drift_in
from sipfw.lower.naming import base_id

if TYPE_CHECKING:
    from collections.abc import Collection

    from sipfw.compare.expected import Expectation, ExpectedSysctl
    from sipfw.compare.live import Live
    from sipfw.compare.sets import SetPair
    from sipfw.host.settings import ConntrackUsage
    from sipfw.lower.xtables import Family


@dataclass(frozen=True, slots=True)
class Count:
    """What one rule counted in one family."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RuleReport:
    """One rule with its counters by family; None where the family has no such rule or counter."""

    layer: str
    chain: str
    id: str
    summary: str
    origin: str
    counts: dict[Family, Count | None]
    action: str = ""

    @property
    def packets(self) -> int:
        """Packets of both families."""
        return sum(count.packets for count in self.counts.values() if count is not None)

    @property
    def bytes(self) -> int:
        """Bytes of both families."""
        return sum(count.bytes for count in self.counts.values() if count is not None)


@dataclass(frozen=True, slots=True)
class SetReport:
    """Fill of one set; packets fill a `dynamic` one, the policy any other.

    `notes`: no rule asks it, so a full one changes nothing for a packet.
    """

    name: str
    summary: str
    entries: int | None
    size: int | None
    dynamic: bool = False
    notes: bool = False


@dataclass(frozen=True, slots=True)
class SysctlReport:
    """A setting as wanted and as it is; `actual` is None where the kernel has none.

    A `fixed` one cannot be set from here, only on the host of this container.
    """

    name: str
    wanted: int
    actual: int | None
    origin: str
    fixed: bool = False

    @property
    def agrees(self) -> bool:
        """Tell whether the kernel does what the policy says."""
        return self.wanted == self.actual


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `verify` shows."""

    families: tuple[Family, ...]
    rules: tuple[RuleReport, ...]
    sets: tuple[SetReport, ...]
    sysctls: tuple[SysctlReport, ...]
    conntrack: ConntrackUsage
    drift: tuple[Drift, ...]


def make_report(
    expectation: Expectation,
    live: Live,
    sysctls: dict[str, int | None],
    conntrack: ConntrackUsage,
    fixed: frozenset[str] = frozenset(),
) -> Report:
    """Put expectation and reality side by side; `fixed` are settings that cannot be set here."""
    found = compare(expectation, live)
    notes = {name for item in expectation.tallies for name in (item.counts, item.moments)}
    return Report(
        tuple(expectation.families()),
        tuple(_rules(expectation, live)),
        tuple(_set(pair, notes) for pair in found.sets),
        tuple(_sysctl(item, sysctls, fixed) for item in expectation.sysctls),
        conntrack,
        tuple(drift_in(found)),
    )


def _rules(expectation: Expectation, live: Live) -> list[RuleReport]:
    counts: dict[tuple[Family, str, str], Count] = {}
    for chain in live.chains:
        for rule in chain.rules:
            if rule.rule_id is not None and rule.counted:
                key = (chain.family, chain.name, base_id(rule.rule_id))
                old = counts.get(key, Count(0, 0))
                counts[key] = Count(old.packets + rule.packets, old.bytes + rule.bytes)
    reports: dict[tuple[str, str], RuleReport] = {}
    for wanted in expectation.chains:
        for expected in wanted.rules:
            rule_id = base_id(expected.id)
            report = reports.setdefault(
                (wanted.name, rule_id),
                RuleReport(
                    wanted.layer,
                    wanted.name,
                    rule_id,
                    expected.summary,
                    expected.origin,
                    {},
                    expected.action,
                ),
            )
            report.counts[wanted.family] = counts.get((wanted.family, wanted.name, rule_id))
    return list(reports.values())


def _set(pair: SetPair, notes: Collection[str]) -> SetReport:
    wanted, options = pair.wanted, pair.wanted.options
    size = int(options[options.index("maxelem") + 1]) if "maxelem" in options else None
    entries = None if pair.found is None else pair.found.entries
    dynamic = wanted.elements is None
    return SetReport(wanted.name, wanted.summary, entries, size, dynamic, wanted.of in notes)


def _sysctl(
    item: ExpectedSysctl, actual: dict[str, int | None], fixed: frozenset[str]
) -> SysctlReport:
    now = actual.get(item.name)
    return SysctlReport(item.name, item.value, now, item.origin, item.name in fixed)
