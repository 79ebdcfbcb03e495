"""Connections that the switch has opened itself: found by what it says on them.

A switch can be made to connect out, by a Via or a Route that names TCP. Such a connection has none
of our ports at either end, so no rule would look at it. Once the switch has said SIP on it, its
other end is noted, and what comes from there is judged as a stranger's stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.ruleset.match import (
    Direction,
    InSet,
    L4Proto,
    PayloadAt,
    Protocol,
    StartsWithOneOf,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action

_DST = Direction.DESTINATION

# Other protocols know INFO, too: their words are not followed by a SIP URI.
_SAID = (
    b"SIP/2.0 ",
    b"INVITE sip",
    b"BYE sip",
    b"ACK sip",
    b"OPTIONS sip",
    b"NOTIFY sip",
    b"REGISTER sip",
    b"SUBSCRIBE sip",
    b"MESSAGE sip",
    b"CANCEL sip",
    b"UPDATE sip",
    b"INFO sip",
    b"REFER sip",
    b"PRACK sip",
    b"PUBLISH sip",
)


def outward_rules(context: Context, prefix: str) -> list[Rule]:
    """Return the rules that find such a connection among all that goes out."""
    if context.denied:
        return []
    words = tuple(dict.fromkeys(said[:4] for said in _SAID))
    return [
        _rule(
            context,
            f"{prefix}.outward-known",
            (Protocol(L4Proto.TCP), InSet(names.SET_OUTWARD, _DST)),
            Goto(names.OUTWARD),
            "a connection that the switch has opened for SIP",
        ),
        _rule(
            context,
            f"{prefix}.outward",
            (StartsWithOneOf(words, L4Proto.TCP),),
            Goto(names.OUTWARD_SAID),
            "starts like SIP, on a connection that is none of our ports",
        ),
    ]


def outward_chains(context: Context) -> list[Chain]:
    """Return the chains behind those rules."""
    return [
        Chain(
            names.OUTWARD_SAID,
            Layer.REPLIES,
            "is it SIP that the switch says on a connection of its own?",
            (
                *(
                    _rule(
                        context,
                        f"outward.{said.split(b' ')[0].split(b'/')[0].decode().lower()}",
                        (PayloadAt(L4Proto.TCP, said),),
                        Goto(names.OUTWARD),
                        f"the switch says {said.decode().strip()}",
                    )
                    for said in _SAID
                ),
                _rule(context, "outward.other", (), Done(), "something else"),
            ),
            Priority.RAW,
        ),
        Chain(
            names.OUTWARD,
            Layer.REPLIES,
            "connections that the switch has opened for SIP",
            (
                _rule(
                    context,
                    "outward.noted",
                    (),
                    UpdateSet(names.SET_OUTWARD, _DST),
                    "other end of a connection that the switch has opened",
                ),
                _rule(
                    context,
                    "outward.replies",
                    (),
                    Goto(names.STREAM_REPLIES),
                    "judged as what it says on its own ports",
                ),
            ),
            Priority.RAW,
        ),
    ]


def _rule(
    context: Context, rule_id: str, matches: tuple[Match, ...], action: Action, summary: str
) -> Rule:
    return Rule(rule_id, matches, action, summary, context.origin("learning"))
