"""How a packet of somebody who is logged in fares, and which policy line decides that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Location, Severity
from sipfw.ruleset.match import Ports
from sipfw.ruleset.model import Layer
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.state import Limit

if TYPE_CHECKING:
    from sipfw.ruleset.model import AddressSet, Ruleset
    from sipfw.ruleset.rule import Origin, Rule
    from sipfw.simulate.packet import Packet
    from sipfw.simulate.trace import Trace


def about(origin: Origin, message: str, severity: Severity = Severity.ERROR) -> Diagnostic:
    """Return a finding that stands at a policy value."""
    return Diagnostic(message, origin.field, Location(origin.file, origin.line), severity)


def worst(ruleset: Ruleset, packet: Packet) -> Trace:
    """Walk within all limits and beyond them: a busy session must not depend on a limit."""
    trace = evaluate(ruleset, packet)
    if trace.dropped or not trace.assumptions:
        return trace
    return evaluate(ruleset, packet, assume=Limit.EXCEEDED)


def decider_of(trace: Trace) -> Rule:
    """Return the rule that dropped the packet of this walk."""
    if trace.decider is None:
        raise AssertionError("a dropped packet has a rule that dropped it")
    return trace.decider


def by_sip(ruleset: Ruleset, trace: Trace) -> bool:
    """Tell whether it is taken for SIP: what judges that has other layers than the host's."""
    rule = trace.decider
    return not any(rule in chain.rules for chain in ruleset.chains if chain.layer is Layer.HOST)


def admin_sets(ruleset: Ruleset) -> list[AddressSet]:
    """Return the sets of the admin networks."""
    return [item for item in ruleset.sets if item.origin.field == "admin.networks"]


def cause(ruleset: Ruleset, port: int, trace: Trace) -> Origin:
    """Return the policy line to change: seldom that of the rule that drops at the end."""
    found: Origin | None
    if by_sip(ruleset, trace):
        ways = (step.rule for step in trace.steps if step.matched)
        found = next((rule.origin for rule in ways if _asks_for(rule, port)), None)
    else:
        found = next((item.origin for item in admin_sets(ruleset)), None)
    return found or decider_of(trace).origin


def _asks_for(rule: Rule, port: int) -> bool:
    return any(
        isinstance(match, Ports) and any(item.first <= port <= item.last for item in match.ranges)
        for match in rule.matches
    )
