"""A cap on all unknown sources together, and who is meant when it is exceeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.ruleset.match import L4Proto, Rate, RateWithin, TimeUnit
from sipfw.ruleset.rule import Done, Drop, Goto, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.rule import Action


# The work and the memory that strangers may cost are bounded by it, whatever comes: a flood of
# 20,000 a second in which everything comes twice.
LOOKED_AT = Rate(40_000, TimeUnit.SECOND)
_BURST = 4000


@dataclass(frozen=True, slots=True)
class CrowdLane:
    """Datagrams or connections; `cap` begins the ids of their rules."""

    proto: L4Proto
    cap: str
    admitted: Action
    ending: str = ""

    def chain(self, name: str) -> str:
        """Name one of the chains."""
        return f"{name}{self.ending}"


DATAGRAMS = CrowdLane(L4Proto.UDP, "aggregate", Goto(names.SIGNATURES))
CONNECTIONS = CrowdLane(L4Proto.TCP, "streams", Done(), names.TCP_ENDING)


def stranger_rules(context: Context, way: CrowdLane) -> list[Rule]:
    """Return what ends the chain of those about whom nothing is known.

    First how many are looked at: a flood beyond it pays for no more than a limit.
    """
    origin = context.origin("limits", "aggregate")
    if context.policy.limits.aggregate is None:
        summary = "no cap on unknown sources together"
        return [Rule(f"{way.cap}.uncapped", (), way.admitted, summary, origin)]
    return [
        Rule(
            f"{way.cap}.looked-at",
            (RateWithin(LOOKED_AT, _BURST),),
            Goto(way.chain(names.CROWD)),
            "unknown source",
            origin,
        ),
        Rule(
            f"{way.cap}.overlooked",
            (),
            Drop(),
            f"unknown sources together above {LOOKED_AT}",
            origin,
        ),
    ]


def cap_on_strangers(context: Context) -> RateWithin | None:
    """Return the limit of all unknown sources together, None where the policy has none."""
    rate = context.policy.limits.aggregate
    if rate is None:
        return None
    seconds = rate.unit.seconds
    return RateWithin(rate, max(1, rate.amount if seconds == 1 else rate.amount // seconds))
