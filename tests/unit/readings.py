"""Reports and readings for tests, built from a few numbers."""

from __future__ import annotations

from sipfw.compare.drift import Drift, DriftKind
from sipfw.host.settings import ConntrackUsage
from sipfw.lower.xtables import Family
from sipfw.monitor.report import Count, Report, RuleReport, SetReport, SysctlReport

GONE = Drift(DriftKind.MISSING, "jump", "IPv4 raw PREROUTING", "no packet reaches sipfw here")


def rule(
    layer: str, name: str, action: str, packets: int, packets6: int | None = None
) -> RuleReport:
    counts: dict[Family, Count | None] = {Family.IP: Count(packets, 100 * packets)}
    if packets6 is not None:
        counts[Family.IP6] = Count(packets6, 100 * packets6)
    return RuleReport(layer, f"SIP_{layer}", name, "a rule", "policy.yaml:3: x", counts, action)


def report(
    *rules: RuleReport,
    drift: tuple[Drift, ...] = (),
    sets: tuple[SetReport, ...] = (),
    sysctls: tuple[SysctlReport, ...] = (),
    connections: int | None = 10,
) -> Report:
    return Report(
        (Family.IP, Family.IP6), rules, sets, sysctls, ConntrackUsage(connections, 100), drift
    )
