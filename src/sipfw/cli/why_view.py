"""What `sipfw why` found, for people: the verdict, its reason, and what would change it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.cli.output import table
from sipfw.cli.why_others import course_texts, ending_text, fate, possible_texts
from sipfw.cli.why_sentence import sentence
from sipfw.cli.why_words import (
    change_text,
    command_text,
    held_text,
    limit_text,
    rule_id,
    standing_text,
)
from sipfw.kernel.detect import printable
from sipfw.monitor.why.packets import PacketTransport
from sipfw.monitor.why.why import Effect
from sipfw.ruleset.match import (
    ConnectionsAbove,
    CountAbove,
    InSet,
    PayloadContains,
    Ports,
    Protocol,
)
from sipfw.ruleset.rule import Accept, Done, Drop, Goto, Jump, Reset
from sipfw.simulate.trace import Verdict
from sipfw.words import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.monitor.why.live import ExplainedFirewall
    from sipfw.monitor.why.packets import PacketQuestion
    from sipfw.monitor.why.state import LimitReading, SourceState
    from sipfw.monitor.why.why import Case, Explanation, Remedy
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Rule
    from sipfw.simulate.outcomes import Outcome
    from sipfw.simulate.trace import Trace

_WORDS = {
    Verdict.PASSED: "passed",
    Verdict.ACCEPTED: "passed",
    Verdict.DROPPED: "dropped",
    Verdict.RESET: "reset (TCP)",
}
_SECONDS = re.compile(r"for another (\d+) s$")

# These say nothing that the title does not.
_PLAIN = (Protocol, Ports)
_DECIDING = (Accept, Done, Drop, Reset, Goto, Jump)


def as_lines(
    answer: Explanation,
    firewall: ExplainedFirewall,
    source: SourceState,
    commands: frozenset[str],
    names: Sequence[str] = (),
) -> Iterator[str]:
    """Return the answer for people; `commands` are those that this version has.

    `names` are the host names that have brought the source in.
    """
    yield sentence(answer, source, commands)
    yield ""
    yield _head(firewall, answer.question)
    for case in answer.cases:
        yield ""
        yield from _case(case, source, commands)
    yield ""
    yield from _state(answer, source, firewall.ruleset, names)
    yield from _notes(answer, firewall)


def _head(firewall: ExplainedFirewall, question: PacketQuestion) -> str:
    if firewall.backend is None:
        return f"{question.source} and the policy {firewall.source}, as if it had just been applied"
    number = "" if firewall.generation is None else f", generation {firewall.generation}"
    return f"{question.source} now, in {firewall.backend}{number}, from {firewall.source}"


def _case(case: Case, source: SourceState, commands: frozenset[str]) -> Iterator[str]:
    main, *others = case.outcomes
    asked_for = case.question
    what = f"{', '.join(case.titles)} over {asked_for.transport} to port {asked_for.to_port}"
    unless = ", unless" if case.effect is Effect.DEPENDS else ""
    elsewhere = case.course.end if case.ends_elsewhere else None
    word = _WORDS[main.trace.verdict] if elsewhere is None else fate(elsewhere)
    deaf = case.effect is not Effect.DROPPED and case.course.unheard
    yield printable(f"{what}: {word}{f', but {deaf}' if deaf else ''}{unless}")
    rows: list[tuple[str, str, str]] = []
    if elsewhere is not None:
        rows += _block("by", [ending_text(elsewhere)])
    if unless:
        rows += _block("unless", [*_exceptions(main, others, source), *possible_texts(case.course)])
    title = "by" if elsewhere is None else "sipfw"
    rows += _block(title, [_by(rule, source.world.ruleset) for rule in main.trace.deciders])
    rows += _block("because", _reasons(main.trace))
    rows += _block("others", course_texts(case.course, dropped=main.trace.dropped))
    if elsewhere is None:
        rows += _block(
            "passes if" if main.trace.dropped else "dropped if",
            [_change_line(item, source, commands) for item in case.changes],
        )
    yield from table(rows, head=False)


def _block(title: str, lines: list[str]) -> list[tuple[str, str, str]]:
    return [("", title if number == 0 else "", line) for number, line in enumerate(lines)]


def _exceptions(main: Outcome, others: list[Outcome], source: SourceState) -> list[str]:
    lines = []
    for end in others:
        if end.trace.dropped != main.trace.dropped:
            word = _WORDS[end.trace.verdict]
            then = f"{word} by {_deciding(end.trace)}" if end.trace.dropped else word
            when = " and ".join(item.unless for item in end.when)
            lines.append(f"{when}: then {then} ({_why_unknown(end, source)})")
    return lines


def _why_unknown(end: Outcome, source: SourceState) -> str:
    """Say who could know: the operator knows the port, and nobody what the kernel hides."""
    per_port = {
        reading.rule_id
        for reading in source.readings
        if any(bucket.port is not None for bucket in reading.buckets)
        or (reading.entry is not None and reading.entry.present is None)
    }
    about_ports = all(
        item.rule_id in per_port
        or item.unless.startswith(("it comes from port", "it comes from a port"))
        for item in end.when
    )
    return "--port tells" if about_ports else "the kernel does not show this"


def _deciding(trace: Trace) -> str:
    return "nobody" if trace.decider is None else rule_id(trace.decider)


def _by(rule: Rule, ruleset: Ruleset) -> str:
    layer = next((chain.layer.value for chain in ruleset.chains if rule in chain.rules), "")
    return f"{rule_id(rule)}: {rule.summary}  [{layer}]  {rule.origin}"


def _reasons(trace: Trace) -> list[str]:
    """Return what the rules on the packet's way found, those that chose the way."""
    found = (
        _SECONDS.sub(lambda found: f"for another {format_duration(int(found[1]))}", step.why)
        for step in trace.steps
        if step.matched
        and isinstance(step.rule.action, _DECIDING)
        and any(not isinstance(match, _PLAIN) for match in step.rule.matches)
    )
    # A word at the start may choose the way more than once.
    return list(dict.fromkeys(found))


def _change_line(change: Remedy, source: SourceState, commands: frozenset[str]) -> str:
    command = command_text(change, source, commands)
    text = change_text(change, source)
    return text if command is None else f"{text}: {command}"


def asked(answer: Explanation, source: SourceState) -> list[LimitReading]:
    """Return the limits that the packets met, without those of what might be.

    A count puts nobody out: it leads into a set, which another rule asks.
    """
    met = {
        step.rule_id for case in answer.cases for end in case.outcomes for step in end.trace.steps
    }
    connects = any(case.question.transport is not PacketTransport.UDP for case in answer.cases)
    return [
        reading
        for reading in source.readings
        if reading.rule_id in met
        and not isinstance(reading.limit, CountAbove)
        and (connects or not isinstance(reading.limit, ConnectionsAbove))
    ]


def memberships(source: SourceState) -> list[str]:
    """Return the names of the policy's sets that the source is in."""
    return [
        item.name
        for item in source.world.ruleset.sets
        if not item.dynamic and (item.networks or item.endpoints)
    ]


def _state(
    answer: Explanation, source: SourceState, ruleset: Ruleset, names: Sequence[str]
) -> Iterator[str]:
    inside = [
        name for name, it in source.sets.items() if it.present is not False or source.doors(name)
    ]
    absent = [name for name in _asked_sets(answer, source) if name not in inside]
    held = [held_text(name, source, ruleset) for name in inside]
    if absent:
        held.append(f"not in {', '.join(absent)}")
    members = memberships(source)
    held.append(
        f"the policy: in {', '.join(members)}" if members else "the policy: in none of its sets"
    )
    held += [f"by its name: {name}" for name in names]
    rows = [["sets  " if row == 0 else "", line] for row, line in enumerate(held)]
    yield from table(rows, head=False)
    limits = [
        ["", reading.rule_id, limit_text(reading, source), standing_text(reading)]
        for reading in asked(answer, source)
    ]
    rows = [["limits" if row is limits[0] else "", *row[1:]] for row in limits]
    yield from table(rows, head=False)


def _asked_sets(answer: Explanation, source: SourceState) -> list[str]:
    """Return the dynamic sets that the packets were asked about, in the order of the policy's."""
    asked = {
        match.set
        for case in answer.cases
        for end in case.outcomes
        for step in end.trace.steps
        for match in step.rule.matches
        if isinstance(match, InSet)
    }
    return [name for name in source.sets if name in asked]


def _notes(answer: Explanation, firewall: ExplainedFirewall) -> Iterator[str]:
    question = answer.question
    searches = any(
        isinstance(match, PayloadContains)
        for case in answer.cases
        for end in case.outcomes
        for step in end.trace.steps
        for match in step.rule.matches
    )
    if searches and question.payload is None and question.user_agent is None:
        yield "what it calls itself was not asked; --user-agent TEXT looks for scanners in it"
    if firewall.backend is None and any(c.effect is not Effect.DROPPED for c in answer.cases):
        yield "whether other rules of this host drop it is not judged here"
