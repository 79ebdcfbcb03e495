"""Room for newcomers while unknown sources exceed their cap.

A first packet of an address and port is noted and dropped: every phone repeats it (RFC 3261,
17.1.1.2 and 17.1.2.2: 0.5, 1.5, 3.5, 7.5 s after the first; a SYN comes again after 1 and 3 s, RFC
6298), what is forged is rarely repeated. The second, the third and every later sight have a lane
each, so that who forges everything twice fills one lane only, and a network has its share of them.
The reasons and the figures: docs/decisions/0018-room-in-a-flood.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.crowd import (
    CONNECTIONS,
    DATAGRAMS,
    CrowdLane,
    cap_on_strangers,
    stranger_rules,
)
from sipfw.compiler.layers.rates import NEIGHBOURS
from sipfw.ruleset.match import (
    ONE_ADDRESS,
    Direction,
    InSet,
    Protocol,
    Rate,
    RateAbove,
    RateWithin,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Drop, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action

# One token in five seconds: a phone's fourth datagram comes 3.5 s after its first.
_ONCE = Rate(12, TimeUnit.MINUTE)
# `crowd.LOOKED_AT` for the seven seconds that a note lives: there is always room for one more.
_NOTES = 327_680
# Of a /24 or /48: beyond a few, a newcomer in two seconds.
_OF_NETWORK = (Rate(30, TimeUnit.MINUTE), 3)
# With the lane of the challenged there are four: fewer than a switch can well answer.
_LANE = 100
_LANES = 4


def crowd_chains(context: Context) -> list[Chain]:
    """Return what the cap leads to; none where strangers have no cap."""
    cap = cap_on_strangers(context)
    if context.denied or cap is None:
        return []
    opening = Chain(
        names.OPENING,
        Layer.ENTRY,
        "unknown sources that open a connection: a cap for all of them",
        tuple(stranger_rules(context, CONNECTIONS)),
        Priority.RAW,
    )
    ways = [_Lanes(context, way, cap) for way in (DATAGRAMS, CONNECTIONS)]
    return [opening, *(chain for lanes in ways for chain in lanes.chains())]


class _Lanes:
    def __init__(self, context: Context, way: CrowdLane, cap: RateWithin) -> None:
        self._context = context
        self._way = way
        self._cap = cap
        self._proto = Protocol(way.proto)

    def chains(self) -> list[Chain]:
        """Return them in the order in which a packet meets them.

        No more than these: nf_tables follows sixteen jumps and gotos (NFT_JUMP_STACK_SIZE).
        """
        return [
            self._chain(
                names.CROWD,
                "unknown sources together: a cap for all of them",
                *self._former(),
                *self._cap_rules(),
            ),
            self._chain(
                names.NEWCOMERS,
                "a first packet is noted and dropped, its repetition comes in",
                *self._newcomers(),
            ),
            self._chain(
                names.RETURNING,
                "repetitions: a lane for the second, the third and every later sight",
                *self._challenged(),
                *self._returning(),
            ),
        ]

    def _rule(self, name: str, matches: tuple[Match, ...], action: Action, summary: str) -> Rule:
        origin = self._context.origin("limits", "aggregate")
        return Rule(f"{self._way.cap}.{name}", matches, action, summary, origin)

    def _chain(self, name: str, summary: str, *rules: Rule) -> Chain:
        return Chain(self._way.chain(name), Layer.RATE, summary, rules, Priority.RAW)

    def _cap_rules(self) -> list[Rule]:
        """Above the cap the next seconds are a rush: by chance only the flood would be admitted."""
        rush = InSet(names.SET_RUSH, Direction.DESTINATION)
        returning = Goto(self._way.chain(names.RETURNING))
        newcomers = Goto(self._way.chain(names.NEWCOMERS))
        seen = RateAbove(
            self._bucket("again"),
            _ONCE,
            1,
            ONE_ADDRESS,
            with_port=True,
            expire=0,
            table_size=_NOTES,
        )
        within = f"unknown sources together within {self._cap.rate}"
        above = f"unknown sources together above {self._cap.rate}: first packet, noted"
        again = "address and port seen a moment ago"
        return [
            self._rule("rush-again", (rush, seen), returning, again),
            self._rule("rush", (rush,), newcomers, "they were above their cap a moment ago"),
            self._rule("within", (self._cap,), self._way.admitted, within),
            self._rush("exceeded"),
            self._rule("again", (seen,), returning, again),
            self._rule("above", (), Drop(), above),
        ]

    def _rush(self, name: str) -> Rule:
        """Note a rush at that port of the switch.

        It asks for the protocol as nftables may take a segment for a datagram
        (`sipfw.lower.nftables_lean`).
        """
        rush = UpdateSet(names.SET_RUSH, Direction.DESTINATION)
        return self._rule(name, (self._proto,), rush, "unknown sources are above their cap")

    def _newcomers(self) -> list[Rule]:
        """Drop them all: the rush lasts for as long as they are more than the cap."""
        return [
            self._rule("easing", (self._cap,), Drop(), "first packet, noted; the rush ebbs away"),
            self._rush("lasting"),
            self._rule("noted", (), Drop(), "first packet of an address and port, noted"),
        ]

    def _bucket(self, name: str) -> str:
        return f"t{name}" if self._way is CONNECTIONS else name

    def _former(self) -> list[Rule]:
        """Exempt from the cap, and from nothing else, who has logged in within the last weeks."""
        if not self._context.learning:
            return []
        return [
            Rule(
                f"{self._way.cap}.former",
                (InSet(names.SET_FORMER),),
                self._way.admitted,
                "somebody has logged in from here before",
                self._context.origin("learning", "remembered_ttl"),
            )
        ]

    def _challenged(self) -> list[Rule]:
        """Let the login behind a challenge in: it comes from the address and port just admitted."""
        if not self._context.learning or self._way is CONNECTIONS:
            return []
        return [
            self._rule(
                "challenged",
                (InSet(names.SET_CHALLENGED), self._lane()),
                self._way.admitted,
                "a port that the switch has just challenged",
            )
        ]

    def _returning(self) -> list[Rule]:
        rate, burst = _OF_NETWORK
        twice, thrice = InSet(names.SET_TWICE), InSet(names.SET_THRICE)
        network = RateAbove(
            self._bucket("newnet"), rate, burst, NEIGHBOURS, expire=0, table_size=_NOTES
        )
        return [
            self._rule("network", (network,), Drop(), f"one /24 or /48 above {rate}"),
            *self._lane_of("later", (thrice,), "fourth sight or a later one"),
            self._noted("thrice", (self._proto, twice), names.SET_THRICE),
            *self._lane_of("third", (twice,), "third sight"),
            self._noted("twice", (self._proto,), names.SET_TWICE),
            *self._lane_of("second", (), "second sight"),
        ]

    def _noted(self, name: str, matches: tuple[Match, ...], into: str) -> Rule:
        return self._rule(name, matches, UpdateSet(into), f"seen {name}: noted")

    def _lane_of(self, name: str, matches: tuple[Match, ...], what: str) -> list[Rule]:
        lane = self._lane()
        return [
            self._rule(name, (*matches, lane), self._way.admitted, f"{what}, within {lane.rate}"),
            self._rule(f"{name}-full", matches, Drop(), f"{what}, above {lane.rate}"),
        ]

    def _lane(self) -> RateWithin:
        rate = self._cap.rate
        amount = max(1, min(rate.amount // _LANES, _LANE * rate.unit.seconds))
        return RateWithin(Rate(amount, rate.unit), max(1, amount // rate.unit.seconds))
