"""The answer of `sipfw why` in one sentence, before everything that supports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.why_others import ending_text
from sipfw.cli.why_words import command_text
from sipfw.kernel.detect import printable
from sipfw.monitor.why.why import Effect

if TYPE_CHECKING:
    from sipfw.monitor.why.state import SourceState
    from sipfw.monitor.why.why import Case, Explanation


def sentence(answer: Explanation, source: SourceState, commands: frozenset[str]) -> str:
    """Say what becomes of the packets, of those that do not get through first, and the remedy."""
    cases = sorted(answer.cases, key=lambda case: _ORDER[case.effect])
    said = [_said(case, source, commands) for case in cases]
    # No full stop: the sentence may end with a command.
    return printable(f"From {answer.question.source}: {'; '.join(said)}")


_ORDER = {Effect.DROPPED: 0, Effect.DEPENDS: 1, Effect.PASSES: 2}


def _said(case: Case, source: SourceState, commands: frozenset[str]) -> str:
    asked = case.question
    *most, last = case.titles
    what = f"{', '.join(most)} and {last}" if most else last
    verb = "are" if most else "is"
    what += f" over {asked.transport} to port {asked.to_port}"
    if case.ends_elsewhere and case.course.end is not None:
        return f"{what} {verb} {ending_text(case.course.end)}"
    if case.course.answers is not None and not case.outcomes[0].trace.dropped:
        return f"{what} {verb} let through, but its answers are {ending_text(case.course.answers)}"
    if case.effect is not Effect.DROPPED and case.course.unheard:
        return f"{what} {verb} let through, but {case.course.unheard}"
    if case.effect is Effect.PASSES:
        return f"{what} {verb} let through"
    if case.effect is Effect.DEPENDS:
        return f"{what} {verb} let through, unless what stands below"
    decider = case.outcomes[0].trace.decider
    why = "" if decider is None else f", {decider.summary}"
    found = (command_text(change, source, commands) for change in case.changes)
    remedy = next((f"; to change that: {text}" for text in found if text is not None), "")
    return f"{what} {verb} dropped{why}{remedy}"
