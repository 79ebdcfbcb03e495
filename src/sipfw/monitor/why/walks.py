"""The walk of a packet through sipfw's own rules, as far as those of others let it come there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.ruleset.match import CtState
from sipfw.simulate.outcomes import Outcome, outcomes
from sipfw.simulate.trace import Trace

if TYPE_CHECKING:
    from sipfw.monitor.why.others import Course
    from sipfw.monitor.why.state import World
    from sipfw.simulate.packet import Packet


def walked(packet: Packet, world: World, course: Course) -> tuple[Outcome, ...]:
    """Return every end of a packet within sipfw; behind NAT it has another port."""
    if course.untracked:
        packet = replace(packet, state=CtState.UNTRACKED)
    found = outcomes(world.ruleset, packet, world.live, course.first, misses=world.misses)
    if course.moved is None or not course.later:
        return found
    sent = replace(packet, destination_port=course.moved)
    later = outcomes(world.ruleset, sent, world.live, course.later, misses=world.misses)
    return tuple(
        joined
        for first in found
        for joined in ([first] if first.trace.dropped else [_joined(first, end) for end in later])
    )


def _joined(first: Outcome, later: Outcome) -> Outcome:
    one, two = first.trace, later.trace
    trace = Trace(
        one.packet,
        (*one.stages, *two.stages),
        two.verdict,
        tuple(dict.fromkeys((*one.assumptions, *two.assumptions))),
        (*one.changes, *two.changes),
    )
    return Outcome(trace, (*first.when, *later.when))
