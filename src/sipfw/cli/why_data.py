"""What `sipfw why` found, for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.cli.why_view import asked, memberships
from sipfw.cli.why_words import (
    change_text,
    failures,
    limit_text,
    rule_id,
    standing_text,
)

if TYPE_CHECKING:
    from sipfw.backends.source_sets import Held
    from sipfw.look.why import Case, Explanation
    from sipfw.look.why_live import Firewall
    from sipfw.look.why_state import Reading, Source
    from sipfw.ruleset.rule import Rule
    from sipfw.walk.outcomes import Outcome

# Counts up when a field goes or changes its meaning; a new field leaves it as it is.
FORMAT = 1


def as_data(answer: Explanation, firewall: Firewall, source: Source) -> dict[str, Any]:
    """Return the answer for machines.

    `answers` holds messages that fare alike. `outcomes[0]` is what happens; each other outcome
    happens instead where what its `when` names is so, which nobody can know.
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
        "sets": {name: _held(held) for name, held in source.sets.items()},
        "member_of": memberships(source),
        "limits": [_reading(reading, source) for reading in asked(answer, source)],
    }


def _case(case: Case, source: Source) -> dict[str, Any]:
    return {
        "messages": list(case.titles),
        "verdict": case.effect.name.lower(),
        "outcomes": [_outcome(end, source) for end in case.outcomes],
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


def _outcome(end: Outcome, source: Source) -> dict[str, Any]:
    return {
        "dropped": end.trace.dropped,
        "when": [{"rule": item.rule_id, "text": item.unless} for item in end.when],
        "rules": [_rule(rule, source) for rule in end.trace.deciders],
        "steps": [
            {"chain": step.chain, "rule": step.rule_id, "why": step.why}
            for step in end.trace.steps
            if step.matched
        ],
    }


def _rule(rule: Rule, source: Source) -> dict[str, Any]:
    chains = source.world.ruleset.chains
    layer = next((chain.layer.value for chain in chains if rule in chain.rules), None)
    return {
        "id": rule_id(rule),
        "layer": layer,
        "summary": rule.summary,
        "origin": str(rule.origin),
    }


def _held(held: Held) -> dict[str, Any]:
    return {
        "present": held.present,
        "left": None if held.left is None else round(held.left),
        "count": failures(held),
    }


def _reading(reading: Reading, source: Source) -> dict[str, Any]:
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
    }
