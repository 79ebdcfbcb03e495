"""What trusted peers have sent in vain, read from the sets in which the rules note it.

Which sets those are the record says: another policy has others (`sipfw.compiler.layers.lost`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sipfw.compare.expected import Expectation, ExpectedTally
    from sipfw.kernel.backend import Backend
    from sipfw.kernel.state.sources import Held
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.source import Door


@dataclass(frozen=True, slots=True)
class Loss:
    """Packets of one source to one port of this host, dropped because no rule admits them.

    `packets` is None where the kernel does not count them; `first` and `last` are seconds since
    1970, `first` None where nothing tells. `rule` is the one that has dropped them, of `layer`.
    """

    source: IpAddress
    door: Door
    packets: int | None
    first: float | None
    last: float
    layer: str = "host"
    rule: str = ""


def read_losses(expectation: Expectation, backend: Backend) -> tuple[Loss, ...]:
    """Return what is noted, the latest first. Raises BackendError where the kernel is silent."""
    if not expectation.tallies:
        return ()
    sets = backend.sources(frozenset(item.of for item in expectation.sets))
    now = time.time()
    found: list[Loss] = []
    for tally in expectation.tallies:
        moments = sets.targets(tally.moments)
        # Nearly always there are none; with ipset each set is a listing of its own.
        if moments:
            found += _of(tally, sets.targets(tally.counts), moments, now)
    return tuple(sorted(found, key=lambda item: -item.last))


def _of(
    tally: ExpectedTally,
    counts: Mapping[tuple[IpAddress, Door], Held],
    moments: Mapping[tuple[IpAddress, Door], Held],
    now: float,
) -> Iterator[Loss]:
    for key, moment in moments.items():
        count = counts.get(key)
        yield Loss(
            *key,
            packets=None if count is None else count.packets,
            first=None if count is None else _began(tally, count, now),
            last=_began(tally, moment, now) or now,
            layer=tally.layer,
            rule=tally.rule,
        )


def _began(tally: ExpectedTally, held: Held, now: float) -> float | None:
    """Return when an entry got its time, which is the set's own."""
    return None if held.left is None else now - max(tally.seconds - held.left, 0.0)
