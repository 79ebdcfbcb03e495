"""A look at a firewall that was never applied, with figures that differ from rule to rule."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from sipfw.compare.expected import expect
from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
from sipfw.compiler.pipeline import compile_policy
from sipfw.host.settings import ConntrackUsage
from sipfw.kernel.backend import backend_of
from sipfw.lower.iptables import lower
from sipfw.monitor.health import judge
from sipfw.monitor.metrics.scrape import Scrape, UnfinishedChange
from sipfw.monitor.observe import Observation, Subject
from sipfw.monitor.reading import make_reading
from sipfw.monitor.report import make_report
from sipfw.monitor.summary import summarise
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.compare.expected import Expectation

POLICY = """\
profile: wholesale
admin: {networks: [192.0.2.0/28]}
trusted_peers: [{name: a, signalling: [203.0.113.10], tier: large}]
tiers: {enforce: true}
"""
APPLIED = 1_795_517_156.0


def live_of(wanted: Expectation) -> Live:
    """Return a kernel in which all is as wanted and the n-th rule counted n packets."""
    numbers = count(1)

    def rule(rule_id: str, digest: str) -> LiveRule:
        packets = next(numbers)
        return LiveRule(rule_id, digest, packets, 100 * packets, "")

    return Live(
        tuple(
            LiveChain(c.family, c.table, c.name, tuple(rule(r.id, r.digest) for r in c.rules))
            for c in wanted.chains
        ),
        tuple(
            LiveJump(j.family, j.table, j.hook, rule(j.rule.id, j.rule.digest), ())
            for j in wanted.jumps
        ),
        tuple(
            LiveSetState(
                s.name, s.type, s.options, 7, None if s.elements is None else frozenset(s.elements)
            )
            for s in wanted.sets
        ),
    )


def sample(folder: Path) -> Scrape:
    """Return a whole scrape of it, with an apply that waits to be confirmed."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    ruleset = compile_policy(load(Request(policy)))
    wanted = expect(ruleset, lower(ruleset))
    settings: dict[str, int | None] = {item.name: item.value for item in wanted.sysctls}
    settings[wanted.sysctls[0].name] = 1
    report = make_report(wanted, live_of(wanted), settings, ConntrackUsage(850, 1000))
    subject = Subject(wanted, backend_of("iptables"), "policy.yaml", 3)
    reading = make_reading(report, taken=APPLIED + 60, boot="b", generation=3)
    seen = Observation(subject, report, judge(report), reading, summarise(report.rules), None, None)
    return Scrape(seen, applied=APPLIED, change=UnfinishedChange(41.5), seconds=0.25)
