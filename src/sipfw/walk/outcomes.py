"""Every way in which a walk may end that rests on something nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.walk.evaluate import INCOMING, evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.ruleset.model import Base, Ruleset
    from sipfw.walk.packet import Packet
    from sipfw.walk.state import LiveState
    from sipfw.walk.trace import Assumption, Trace

# An unknown limit ends a walk or lets it go on, so that there are hardly more ends than limits.
_MOST = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """One end; it comes true where what `when` names is so and all else is as assumed."""

    trace: Trace
    when: tuple[Assumption, ...] = ()


def outcomes(
    ruleset: Ruleset, packet: Packet, live: LiveState, path: Sequence[Base] = INCOMING
) -> tuple[Outcome, ...]:
    """Return the end that is assumed, and then each other one."""
    found = []
    for outcome in _branches(ruleset, packet, live, path, (), 0):
        found.append(outcome)
        if len(found) == _MOST:
            break
    return tuple(found)


def _branches(  # noqa: PLR0917 - the packet, its world, and where the branch began
    ruleset: Ruleset,
    packet: Packet,
    live: LiveState,
    path: Sequence[Base],
    when: tuple[Assumption, ...],
    settled: int,
) -> Iterator[Outcome]:
    """Walk, and again with each assumption behind the `settled` first ones turned round."""
    trace = evaluate(ruleset, packet, live, path=path, otherwise=frozenset(when))
    yield Outcome(trace, when)
    for place in range(settled, len(trace.assumptions)):
        turned = (*when, trace.assumptions[place])
        yield from _branches(ruleset, packet, live, path, turned, place)
