"""What `sipfw why` found, for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.cli.why_others import course_data
from sipfw.cli.why_view import asked, memberships
from sipfw.cli.why_words import (
    change_text,
    failures,
    limit_text,
    rule_id,
    standing_text,
)
from sipfw.monitor.why.why import Effect
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.source import source_text
from sipfw.simulate.trace import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.monitor.why.live import ExplainedFirewall
    from sipfw.monitor.why.state import LimitReading, SourceState
    from sipfw.monitor.why.why import Case, Explanation
    from sipfw.ruleset.rule import Rule
    from sipfw.simulate.outcomes import Outcome

# Counts up when a field goes or changes its meaning; a new field leaves it as it is.
FORMAT = 1


def as_data(
    answer: Explanation, firewall: ExplainedFirewall, source: SourceState, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the answer for machines.

    `answers` holds messages that fare alike. `outcomes[0]` is what happens; each other outcome
    happens instead where what its `when` names is so, which nobody can know. `others` says what
    rules of others do: `end` where one ends what sipfw lets through, `possible` where one may,
    `answers` where one ends what is sent back, `unheard` why no program gets it.
    """
    question = answer.question
    return {
        "format": FORMAT,
        "address": str(question.source),
        "source_port": question.source_port,
        "port": question.to_port,
        "transport": question.transport,
        "offline": firewall.backend is None,
        "backend": firewall.backend,
        "generation": firewall.generation,
        "policy": firewall.source,
        "answers": [_case(case, source) for case in answer.cases],
        "sets": {name: _held(name, source) for name in source.sets},
        "member_of": memberships(source),
        "names": list(names),
        "limits": [_reading(reading, source) for reading in asked(answer, source)],
    }


def _case(case: Case, source: SourceState) -> dict[str, Any]:
    return {
        "messages": list(case.titles),
        "transport": case.question.transport,
        "verdict": _verdict(case),
        "outcomes": [_outcome(end, source) for end in case.outcomes],
        "others": course_data(case.course),
        "changes": [
            {
                "kind": change.kind.value,
                "name": change.name,
                "limits": [reading.rule_id for reading in change.readings],
                "seconds": None if change.seconds is None else round(change.seconds),
                "verdict": change.effect.name.lower(),
                "text": change_text(change, source),
            }
            for change in case.changes
        ],
    }


def _verdict(case: Case) -> str:
    """Return `passes`, `dropped`, `depends`, or `reset` where each drop is a TCP reset."""
    ends = {end.trace.verdict for end in case.outcomes if end.trace.dropped}
    if case.ends_elsewhere:
        return "dropped"
    if case.effect is Effect.DROPPED and ends == {Verdict.RESET}:
        return "reset"
    return case.effect.name.lower()


def _outcome(end: Outcome, source: SourceState) -> dict[str, Any]:
    return {
        "dropped": end.trace.dropped,
        "reset": end.trace.verdict is Verdict.RESET,
        "when": [{"rule": item.rule_id, "text": item.unless} for item in end.when],
        "rules": [_rule(rule, source) for rule in end.trace.deciders],
        "steps": [
            {"chain": step.chain, "rule": step.rule_id, "why": step.why}
            for step in end.trace.steps
            if step.matched
        ],
    }


def _rule(rule: Rule, source: SourceState) -> dict[str, Any]:
    chains = source.world.ruleset.chains
    layer = next((chain.layer.value for chain in chains if rule in chain.rules), None)
    return {
        "id": rule_id(rule),
        "layer": layer,
        "summary": rule.summary,
        "origin": str(rule.origin),
    }


def _held(name: str, source: SourceState) -> dict[str, Any]:
    held, item = source.sets[name], source.world.ruleset.set(name)
    data: dict[str, Any] = {
        "present": held.present,
        "left": _rounded(held.left),
        "count": failures(held),
    }
    if item.kind in {SetKind.ENDPOINT, SetKind.TARGET}:
        data["ports"] = [
            {"transport": door.proto.value, "port": door.port, "left": _rounded(each.left)}
            for door, each in sorted(source.doors(name).items())
        ]
    else:
        data["source"] = source_text(source.address, item.prefix)
    return data


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _reading(reading: LimitReading, source: SourceState) -> dict[str, Any]:
    return {
        "rule": reading.rule_id,
        "limit": limit_text(reading, source),
        "standing": reading.standing.value,
        "text": standing_text(reading),
        "buckets": [
            {
                "port": bucket.port,
                "standing": bucket.standing.value,
                "left": None if bucket.left is None else round(bucket.left, 3),
                "expires": None if bucket.expires is None else round(bucket.expires),
            }
            for bucket in reading.buckets
        ],
        "connections": reading.connections,
        "bytes": None if reading.entry is None else reading.entry.bytes,
        "packets": None if reading.entry is None else reading.entry.packets,
    }
