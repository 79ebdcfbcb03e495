"""Everything that a report can show, with hostile words wherever others may choose them."""

from __future__ import annotations

import time
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compare.drift import Drift, DriftKind
from sipfw.deploy.activate import NOTHING
from sipfw.deploy.generations import Generation
from sipfw.deploy.history import HistoryEntry
from sipfw.host.settings import ConntrackUsage
from sipfw.kernel.backend import backend_of
from sipfw.lower.xtables import Family
from sipfw.monitor.health import judge
from sipfw.monitor.observe import Observation, Subject
from sipfw.monitor.page import Facts, PeerFacts
from sipfw.monitor.reading import Reading, growth, make_reading
from sipfw.monitor.report import Count, Report, RuleReport, SetReport, SysctlReport
from sipfw.monitor.series import kinds_of, make_series
from sipfw.monitor.summary import summarise
from sipfw.monitor.top.source import DroppedSource, Top

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "\"'></script></title></style><img src=x onerror=alert(1)>{{ 7 * 7 }}\x1b[2J\u202e&amp;"
# As nftables prints a rule: not one blank to break a line at.
ENDLESS = '[{"match":{"op":"==","left":{"payload":{"protocol":"ip"}}}}]' * 6
HOUR = 3600.0
_LAYERS = ("entry", "learned", "scanner-block", "banned", "rate-limit", "replies", "host")
_ORIGIN = f"policy.yaml:3: {HOSTILE}"


def _rules(scale: int) -> tuple[RuleReport, ...]:
    found = [
        RuleReport(
            layer,
            f"SIP_{layer}",
            f"{layer}.rule",
            HOSTILE,
            _ORIGIN,
            {Family.IP: Count(scale * number, 500 * scale * number), Family.IP6: None},
            "drop",
        )
        for number, layer in enumerate(_LAYERS)
    ]
    counts: dict[Family, Count | None] = {Family.IP: Count(30 * scale, 6000 * scale)}
    passed = RuleReport("trusted", "SIP_TRUSTED", "trusted.accept", "peer", _ORIGIN, counts, "pass")
    return (passed, *found)


def _report(scale: int, drift: tuple[Drift, ...]) -> Report:
    return Report(
        (Family.IP, Family.IP6),
        _rules(scale),
        (
            SetReport("sipfw-banned4", HOSTILE, 60_000, 65_536, dynamic=True),
            SetReport("sipfw-trusted4", "trusted peers", 3, 65_536),
            SetReport("sipfw-learned4", "learned", None, 65_536, dynamic=True),
        ),
        (
            SysctlReport("net.netfilter.nf_conntrack_udp_timeout", 25, 30, _ORIGIN),
            SysctlReport("net.netfilter.nf_conntrack_max", 1 << 20, 1 << 18, _ORIGIN, fixed=True),
        ),
        ConntrackUsage(1000 + scale % 700, 1 << 18),
        drift,
    )


def _readings(now: float, drift: tuple[Drift, ...], *, hours: int) -> Iterator[Reading]:
    """Look once an hour, with a silence of ten hours in the middle of a day or more."""
    for hour in range(hours):
        if hours < 24 or not 10 < hour < 20:
            taken = now - (hours - 1 - hour) * HOUR
            boot = "one" if hour < hours // 2 else "two"
            scale = 10_000 * hour if boot == "one" else 700 * (hour - hours // 2 + 1)
            yield make_reading(_report(scale, drift), taken=taken, boot=boot, generation=hour // 30)


def facts(*, hours: int = 72, drift: bool = True, now: float | None = None) -> Facts:
    """Return a report's content: a host in trouble, unless without `drift`."""
    moment = time.time() if now is None else now
    differences = (
        Drift(DriftKind.EXTRA, "rule", "IPv4 raw SIP_TRUSTED", f"{ENDLESS} {HOSTILE}"),
        Drift(
            DriftKind.MISSING,
            "jump",
            "IPv4 raw PREROUTING",
            "no packet reaches sipfw here",
            _ORIGIN,
        ),
    )
    shown = differences if drift else ()
    readings = list(_readings(moment, shown, hours=hours))
    seen = _report(700 * (hours - hours // 2), shown)
    grown = growth(readings[-2], readings[-1]) if len(readings) > 1 else None
    return Facts(
        f"switch{HOSTILE}",
        moment,
        moment - 7 * 24 * HOUR,
        Observation(
            Subject(NOTHING, backend_of("iptables"), HOSTILE, 3),
            seen,
            judge(seen),
            readings[-1],
            summarise(seen.rules, grown),
            readings[-2] if len(readings) > 1 else None,
            grown,
        ),
        len(readings),
        make_series(readings, kinds_of(seen.rules)),
        Top(
            tuple(
                DroppedSource(
                    network,
                    "scanner-block",
                    "scanner.probe",
                    ENDLESS + HOSTILE,
                    9,
                    moment,
                    moment,
                    70,
                )
                for network in (
                    ip_network("198.51.100.66/32"),
                    ip_network("2001:db8:66:1234:5678:9abc:def0:1234/128"),
                    ip_network("198.51.100.0/24"),
                )
            ),
            (HOSTILE,),
            2.0,
        ),
        {"198.51.100.66/32": HOSTILE},
        (
            PeerFacts("carrier-a", ("203.0.113.10", HOSTILE), (), "large", Count(7, 900)),
            PeerFacts(
                "b", tuple(f"203.0.113.{n}" for n in range(9)), ("203.0.113.0/24",), None, None
            ),
        ),
        (
            HistoryEntry(1, live=False, state=f"damaged: {HOSTILE}", generation=None),
            HistoryEntry(
                3,
                live=True,
                state="confirmed",
                generation=Generation(
                    number=3,
                    time="2026-11-24T08:00:00+00:00",
                    who="uid 0",
                    backend="iptables",
                    ipset=True,
                    source=HOSTILE,
                    before=1,
                    digest="0" * 64,
                ),
            ),
        ),
        (HOSTILE,),
    )
