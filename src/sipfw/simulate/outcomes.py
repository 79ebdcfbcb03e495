"""Every way in which a walk may end that rests on something nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.simulate.evaluate import INCOMING, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.ruleset.model import Base, Ruleset
    from sipfw.simulate.evaluate import Misses
    from sipfw.simulate.packet import Packet
    from sipfw.simulate.state import LiveState
    from sipfw.simulate.trace import Assumption, Trace

# An unknown limit ends a walk or lets it go on, so that there are hardly more ends than limits.
_MOST = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """One end; it comes true where what `when` names is so and all else is as assumed."""

    trace: Trace
    when: tuple[Assumption, ...] = ()


def outcomes(
    ruleset: Ruleset,
    packet: Packet,
    live: LiveState,
    path: Sequence[Base] = INCOMING,
    misses: Misses | None = None,
) -> tuple[Outcome, ...]:
    """Return the end that is assumed, and then each other one; `misses` as in `evaluate`."""

    def walk(when: tuple[Assumption, ...]) -> Trace:
        otherwise = frozenset(when)
        return evaluate(ruleset, packet, live, path=path, otherwise=otherwise, misses=misses)

    found = []
    for outcome in _branches(walk, (), 0):
        found.append(outcome)
        if len(found) == _MOST:
            break
    return tuple(found)


def _branches(
    walk: Callable[[tuple[Assumption, ...]], Trace], when: tuple[Assumption, ...], settled: int
) -> Iterator[Outcome]:
    """Walk, and again with each assumption behind the `settled` first ones turned round."""
    trace = walk(when)
    yield Outcome(trace, when)
    for place in range(settled, len(trace.assumptions)):
        yield from _branches(walk, (*when, trace.assumptions[place]), place)
