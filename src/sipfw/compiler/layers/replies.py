"""Reply layer: what the switch sends, and to which judgement each of it leads.

Datagrams are an answer or a request from their first byte. A stream may be cut anywhere, by the
receiver's window too, so refusals are searched in whole segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.compiler.layers.known import trusted_sets
from sipfw.compiler.layers.lessons import lesson_chains
from sipfw.compiler.layers.media import spoken_chains, spoken_rules
from sipfw.compiler.layers.outward import outward_chains, outward_rules
from sipfw.compiler.layers.scanners import KNOWN_STARTS, OPTIONS
from sipfw.compiler.layers.verdicts import verdict_chains
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    CountAbove,
    Direction,
    InSet,
    Interface,
    L4Proto,
    PayloadAt,
    PayloadContains,
    Ports,
    StartsWithOneOf,
)
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Done, Goto, NoTrack, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action

_DST = Direction.DESTINATION

# A WebSocket client masks what it sends (RFC 6455, 5.3), so nobody can tell a login from the
# request before it: every refusal counts, and a phone has one with each of its keys.
_MASKED_FAILURES = 6


def reply_chains(context: Context) -> list[Chain]:
    """Return the output chain and the judgement of replies, as far as the policy wants them."""
    entry = _output(context)
    spoken = [*_behind(context), *spoken_chains(context)]
    if not context.learning:
        return [entry, *spoken] if len(entry.rules) > 1 else []
    chains = [entry, *spoken, _replies(context), _stream_replies(context)]
    if context.bans:
        chains += [_stream_refused(context), *_masked(context)]
    return [
        *chains,
        *outward_chains(context),
        *lesson_chains(context),
        *verdict_chains(context),
    ]


def _output(context: Context) -> Chain:
    rules = [
        Rule(
            "replies.loopback",
            (Interface("lo", _DST),),
            Done(),
            "the switch's own parts talking over loopback",
            context.origin("signalling"),
        )
    ]
    if context.policy.media.notrack and context.policy.media.ports:
        media = join_ports(context.policy.media.ports)
        rules.append(
            Rule(
                "replies.media",
                (Ports(L4Proto.UDP, media, Direction.SOURCE),),
                NoTrack(),
                "RTP kept out of connection tracking",
                context.origin("media", "notrack"),
            )
        )
    rules += spoken_rules(context, "replies")
    if context.learning:
        rules += _signalling(context, "replies")
        rules += outward_rules(context, "replies")
    return Chain(
        names.OUTPUT,
        Layer.REPLIES,
        "what the switch sends",
        tuple(rules),
        Priority.RAW,
        Base(Hook.OUTPUT, Priority.RAW),
    )


def _signalling(context: Context, prefix: str) -> list[Rule]:
    """Find SIP by its source port: media of a caller, sent back to him, may look like an answer."""
    ways = [
        ("udp", L4Proto.UDP, Transport.UDP, names.REPLIES),
        ("tcp", L4Proto.TCP, Transport.TCP, names.STREAM_REPLIES),
    ]
    if context.bans:
        ways.append(("ws", L4Proto.TCP, Transport.WS, names.MASKED_REPLIES))
    return [
        Rule(
            f"{prefix}.{name}",
            (Ports(proto, ports, Direction.SOURCE),),
            Goto(chain),
            f"what the switch sends over {name.upper()}",
            context.origin("learning"),
        )
        for name, proto, transport, chain in ways
        if (ports := context.signalling_ports(transport))
    ]


def _behind(context: Context) -> list[Chain]:
    """Judge what a switch behind this host sends: it is forwarded and never meets OUTPUT."""
    if not context.policy.signalling.behind:
        return []
    origin = context.origin("signalling", "behind")
    rules = spoken_rules(context, "switch")
    if context.learning:
        rules += [*_signalling(context, "switch"), *outward_rules(context, "switch")]
    other = Rule("switch.other", (), Done(), "what the switch sends beside SIP", origin)
    return [
        Chain(
            names.SWITCH,
            Layer.REPLIES,
            "what a switch behind this host sends: never limited",
            (*rules, other),
            Priority.RAW,
        )
    ]


def _rule(
    context: Context,
    rule_id: str,
    matches: tuple[Match, ...],
    action: Action,
    summary: str,
) -> Rule:
    return Rule(rule_id, matches, action, summary, context.origin("learning"))


def _replies(context: Context) -> Chain:
    success = _rule(
        context,
        "replies.2xx-udp",
        (PayloadAt(L4Proto.UDP, b"SIP/2.0 2"),),
        Goto(names.SUCCESS),
        "success over UDP",
    )
    refusal = _rule(
        context,
        "replies.4xx-udp",
        (PayloadAt(L4Proto.UDP, b"SIP/2.0 40"),),
        Goto(names.REFUSED),
        "refusal over UDP",
    )
    return Chain(
        names.REPLIES,
        Layer.REPLIES,
        "the switch's datagrams: what it answers, and whom it asks",
        (
            success,
            *([refusal] if context.bans else []),
            _rule(
                context,
                "replies.1xx-udp",
                (PayloadAt(L4Proto.UDP, b"SIP/2.0 1"),),
                Done(),
                "no final answer",
            ),
            _rule(
                context,
                "replies.final-udp",
                (PayloadAt(L4Proto.UDP, b"SIP/"),),
                DeleteFromSet(names.SET_BARE, _DST),
                "another final answer: leaves bare",
            ),
            *_asked(context, L4Proto.UDP),
            _rule(context, "replies.other", (), Done(), "other replies"),
        ),
        Priority.RAW,
    )


def _asked(context: Context, proto: L4Proto) -> list[Rule]:
    """Only requests: what a switch sends to keep a way open asks nothing."""
    words = StartsWithOneOf((*KNOWN_STARTS, OPTIONS), proto)
    return [
        _rule(
            context,
            f"replies.asks-{proto}",
            (words,),
            UpdateSet(names.SET_ASKED, _DST),
            f"the switch's own request over {proto.upper()}: its answers may come",
        ),
        _rule(
            context,
            f"replies.registers-{proto}",
            (PayloadAt(proto, b"REGI"),),
            UpdateSet(names.SET_ASKED_REGISTER, _DST),
            f"the switch's own REGISTER over {proto.upper()}",
        ),
    ]


def _stream_replies(context: Context) -> Chain:
    peers = [
        _rule(
            context,
            f"stream.to-{name}",
            (InSet(name, _DST, hot=True),),
            Done(),
            "to a trusted peer",
        )
        for name in (names.SET_TRUSTED, names.SET_TRUSTED_TIERS)
        if name in trusted_sets(context)
    ]
    refusal = _rule(
        context,
        "stream.4xx",
        (PayloadContains(b"SIP/2.0 40"),),
        Goto(names.STREAM_REFUSED),
        "a refusal in the segment",
    )
    return Chain(
        names.STREAM_REPLIES,
        Layer.REPLIES,
        "the switch's segments: refusals anywhere in them, success at their start",
        (
            *peers,
            *([refusal] if context.bans else []),
            _rule(
                context,
                "stream.2xx",
                (PayloadAt(L4Proto.TCP, b"SIP/2.0 2"),),
                Goto(names.SUCCESS),
                "success over TCP",
            ),
            *_asked(context, L4Proto.TCP),
            _rule(context, "stream.other", (), Done(), "other segments"),
        ),
        Priority.RAW,
    )


def _stream_refused(context: Context) -> Chain:
    codes = {
        "401": names.CHALLENGE,
        "407": names.CHALLENGE,
        "403": names.FORBIDDEN,
        "404": names.PROBED,
    }
    return Chain(
        names.STREAM_REFUSED,
        Layer.REPLIES,
        "which refusal a segment holds",
        (
            *(
                _rule(
                    context,
                    f"stream.{code}",
                    (PayloadContains(f"SIP/2.0 {code}".encode()),),
                    Goto(chain),
                    f"{code} over TCP",
                )
                for code, chain in codes.items()
            ),
            _rule(context, "stream.4xx-other", (), Done(), "a refusal that is nobody's fault"),
        ),
        Priority.RAW,
    )


def _masked(context: Context) -> list[Chain]:
    if not context.signalling_ports(Transport.WS):
        return []
    refusals = [
        _rule(
            context,
            f"masked.{code}",
            (PayloadContains(f"SIP/2.0 {code}".encode()),),
            Goto(names.MASKED_REFUSED),
            f"{code} over WebSocket",
        )
        for code in ("401", "403", "407")
    ]
    most = _MASKED_FAILURES * context.policy.learning.failures
    return [
        Chain(
            names.MASKED_REPLIES,
            Layer.REPLIES,
            "the switch's WebSocket frames",
            (*refusals, _rule(context, "masked.other", (), Done(), "other frames")),
            Priority.RAW,
        ),
        Chain(
            names.MASKED_REFUSED,
            Layer.REPLIES,
            "refusals over WebSocket, challenges among them",
            (
                _rule(
                    context,
                    "masked.count",
                    (),
                    AddOnce(names.SET_MASKED, _DST),
                    "refusal on a WebSocket connection",
                ),
                _rule(
                    context,
                    "masked.shut",
                    (CountAbove(names.SET_MASKED, most - 1, _DST),),
                    UpdateSet(names.SET_SHUT, _DST),
                    f"connection shut after {most} refusals",
                ),
                _rule(context, "masked.done", (), Done(), "counted"),
            ),
            Priority.RAW,
        ),
    ]
