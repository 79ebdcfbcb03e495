"""Reply layer: the switch's answers tell who is good and who guesses.

A 200 to a REGISTER or INVITE teaches; 401, 403, 404 and 407 count as failures. A digest login
begins with one 401, so only failures without a success in between lead to a ban.
"""

from __future__ import annotations

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.compiler.layers.known import trusted_sets
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
    Rate,
    RateWithin,
    TimeUnit,
)
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Done, Goto, NoTrack, Rule, UpdateSet
from sipfw.words import counted, span_text

_DST = Direction.DESTINATION
_FAILURE_CODES = ("401", "403", "404", "407")
_PLAIN = ((Transport.UDP, L4Proto.UDP), (Transport.TCP, L4Proto.TCP))

# Replies follow requests, so this is what a spoofer could make the switch ban at most.
_BAN_WRITES = Rate(100, TimeUnit.SECOND)
_BAN_BURST = 200


def reply_chains(context: Context) -> list[Chain]:
    """Return the output chain and the judgement of replies, as far as the policy wants them."""
    entry = _output(context)
    if not context.learning:
        return [entry] if len(entry.rules) > 1 else []
    chains = [entry, *_behind(context), _replies(context), _success(context), _learn(context)]
    if context.bans:
        chains += [_refused(context), _failure(context)]
    return chains


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
    if context.learning:
        rules += _signalling(context, "replies")
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
    return [
        Rule(
            f"{prefix}.{transport}",
            (Ports(proto, ports, Direction.SOURCE),),
            Goto(names.REPLIES),
            f"what the switch sends over {transport.upper()}",
            context.origin("learning"),
        )
        for transport, proto in _PLAIN
        if (ports := context.signalling_ports(transport))
    ]


def _behind(context: Context) -> list[Chain]:
    """Judge what a switch behind this host sends: it is forwarded and never meets OUTPUT."""
    if not context.policy.signalling.behind:
        return []
    origin = context.origin("signalling", "behind")
    other = Rule("switch.other", (), Done(), "what the switch sends beside SIP", origin)
    return [
        Chain(
            names.SWITCH,
            Layer.REPLIES,
            "what a switch behind this host sends: never limited",
            (*_signalling(context, "switch"), other),
            Priority.RAW,
        )
    ]


def _replies(context: Context) -> Chain:
    origin = context.origin("learning")
    rules = [
        Rule(
            f"replies.ok-{proto}",
            (PayloadAt(proto, b"SIP/2.0 200"), InSet(names.SET_PENDING, _DST)),
            Goto(names.SUCCESS),
            f"200 to a source that asked over {proto.upper()}",
            origin,
        )
        for _, proto in _PLAIN
    ]
    if context.bans:
        rules += [
            Rule(
                f"replies.4xx-{proto}",
                (PayloadAt(proto, b"SIP/2.0 40"),),
                Goto(names.REFUSED),
                f"refusal over {proto.upper()}",
                origin,
            )
            for _, proto in _PLAIN
        ]
    rules.append(Rule("replies.other", (), Done(), "requests and other replies", origin))
    return Chain(
        names.REPLIES,
        Layer.REPLIES,
        "the switch's judgement of a source",
        tuple(rules),
        Priority.RAW,
    )


def _success(context: Context) -> Chain:
    origin = context.origin("learning")
    rules = [
        # The method ends the reply's CSeq line: a 200 to OPTIONS says nothing about its sender.
        Rule(
            f"success.{method.lower()}",
            (PayloadContains(f" {method}\r\n".encode()),),
            Goto(names.LEARN),
            f"200 to a {method}",
            origin,
        )
        for method in ("REGISTER", "INVITE")
    ]
    rules.append(Rule("success.other", (), Done(), "200 to another method", origin))
    return Chain(
        names.SUCCESS,
        Layer.REPLIES,
        "only success of REGISTER and INVITE teaches",
        tuple(rules),
        Priority.RAW,
    )


def _learn(context: Context) -> Chain:
    origin = context.origin("learning", "registered_ttl")
    rules = [
        Rule(
            "learn.add",
            (),
            UpdateSet(names.SET_LEARNED, _DST),
            "source learned from the switch's answer",
            origin,
        )
    ]
    if context.bans:
        rules += [
            Rule(
                f"learn.clear-{name}",
                (),
                DeleteFromSet(name, _DST),
                f"source leaves the {name}",
                origin,
            )
            for name in (names.SET_FAILURES, names.SET_BANNED)
        ]
    return Chain(
        names.LEARN,
        Layer.REPLIES,
        "the source proved itself: learn it, forgive its failures",
        tuple(rules),
        Priority.RAW,
    )


def _refused(context: Context) -> Chain:
    origin = context.origin("learning", "failures")
    rules = [
        Rule(
            f"refused.{code}-{proto}",
            (PayloadAt(proto, f"SIP/2.0 {code}".encode()),),
            Goto(names.FAILURE),
            f"{code} over {proto.upper()}",
            origin,
        )
        for code in _FAILURE_CODES
        for _, proto in _PLAIN
    ]
    rules.append(Rule("refused.other", (), Done(), "a refusal that is nobody's fault", origin))
    return Chain(
        names.REFUSED,
        Layer.REPLIES,
        "which refusals count as failures",
        tuple(rules),
        Priority.RAW,
    )


def _failure(context: Context) -> Chain:
    learning = context.policy.learning
    origin = context.origin("learning", "failures")
    failures = counted(learning.failures, "failure")
    rules = [
        Rule(
            f"failure.{name}",
            (InSet(name, _DST),),
            Done(),
            f"{name} sources are not counted",
            origin,
        )
        for name in (*sorted(trusted_sets(context)), names.SET_LEARNED)
    ]
    rules += [
        Rule(
            "failure.count",
            (),
            AddOnce(names.SET_FAILURES, _DST),
            "failure of an unknown source",
            origin,
        ),
        Rule(
            "failure.ban",
            (
                CountAbove(names.SET_FAILURES, learning.failures - 1, _DST),
                RateWithin(_BAN_WRITES, _BAN_BURST),
            ),
            UpdateSet(names.SET_BANNED, _DST),
            f"source banned after {failures} in {span_text(learning.window)}",
            origin,
        ),
    ]
    return Chain(
        names.FAILURE,
        Layer.REPLIES,
        "failures without success lead to a ban",
        tuple(rules),
        Priority.RAW,
    )
