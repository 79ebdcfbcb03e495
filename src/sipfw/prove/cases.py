"""Single requests through the rules, without a kernel: milliseconds each."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Location
from sipfw.errors import PolicyError
from sipfw.monitor.why.packets import PacketQuestion, PacketTransport, completed, messages
from sipfw.policy.case import Expected, Known
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.state import Limit, LiveState
from sipfw.words import nearest

if TYPE_CHECKING:
    from sipfw.policy.case import Case, Cases
    from sipfw.policy.merge import Origins
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.match import PrefixLengths
    from sipfw.ruleset.model import Ruleset

# The set that holds a source of which this is known.
_SETS = {Known.LEARNED: "learned", Known.BANNED: "banned"}


@dataclass(frozen=True, slots=True)
class Tried:
    """One case: `decided` are the rules that did, `failure` says what is not as expected."""

    name: str
    decided: tuple[str, ...]
    failure: str = ""


def try_cases(cases: Cases, origins: Origins, ruleset: Ruleset) -> list[Tried]:
    """Walk every case. Raises PolicyError for a rule or a set that the policy does not have."""
    rules = {rule.id for chain in ruleset.chains for rule in chain.rules}
    sets = {each.name for each in ruleset.sets}
    found, faults = [], []
    for number, case in enumerate(cases.cases):
        place = origins.nearest(("cases", number))
        if case.by is not None and case.by not in rules:
            near = nearest(case.by, rules)
            hint = f"; did you mean {near}?" if near else "; sipfw verify names them"
            at = origins.nearest(("cases", number, "by"))
            faults.append(Diagnostic(f"the policy makes no rule {case.by}{hint}", "by", at))
        elif case.known in _SETS and _SETS[case.known] not in sets:
            message = f"with this policy no source is ever {case.known}"
            faults.append(Diagnostic(message, "known", place))
        else:
            found.append(_tried(case, _name(case, place), ruleset))
    if faults:
        raise PolicyError(faults)
    return found


def _name(case: Case, place: Location) -> str:
    return case.name or f"{case.send} from {case.source} (line {place.line})"


def _tried(case: Case, name: str, ruleset: Ruleset) -> Tried:
    question = PacketQuestion(
        case.source,
        source_port=case.source_port,
        to_port=case.to_port,
        transport=PacketTransport(case.transport),
        method=case.send,
        user_agent=case.user_agent,
    )
    live = _live(case, ruleset)
    assumed = Limit.EXCEEDED if case.above_limits else Limit.WITHIN
    walks = [
        evaluate(ruleset, each.packet, live, assume=assumed)
        for each in messages(completed(question, ruleset), ruleset)
    ]
    dropped = [walk for walk in walks if walk.dropped]
    decided = tuple(dict.fromkeys(rule.id for walk in dropped or walks for rule in walk.deciders))
    became = Expected.DROPPED if dropped else Expected.ACCEPTED
    by = " and ".join(decided) or "no rule"
    if became is not case.expect:
        return Tried(name, decided, f"{became} by {by}, expected {case.expect}")
    if case.by is not None and case.by not in decided:
        return Tried(name, decided, f"{became} by {by}, expected by {case.by}")
    return Tried(name, decided)


def _live(case: Case, ruleset: Ruleset) -> LiveState:
    """Return what the kernel knows before: nothing, or the one thing about the source."""
    member = _SETS.get(case.known)
    return LiveState(
        {
            each.name: {_element(case.source, each.prefix): None} if each.name == member else {}
            for each in ruleset.sets
            if each.dynamic
        }
    )


def _element(source: IpAddress, prefix: PrefixLengths) -> IpAddress:
    length = prefix.ip if source.version == 4 else prefix.ip6
    return ip_network((source, length), strict=False).network_address
