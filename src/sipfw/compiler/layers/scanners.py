"""Scanner layer: sorts out who is no trusted peer, cheapest test first; drops, never bans.

A blind spoofer can write a customer's address into a scanner packet, so a ban here would be a
weapon against customers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.feeds import feed_rules
from sipfw.policy.signatures import Signature, select, shipped_signatures
from sipfw.ruleset.match import (
    InSet,
    L4Proto,
    Match,
    PayloadAt,
    PayloadContains,
    Protocol,
    RateWithin,
    ShorterThan,
    StartsWithOneOf,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Drop, Goto, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context

# "SIP/2.0 200" and "BYE sip:a@b" have 11 bytes; less is no SIP message (RFC 3261, 7.1 and 7.2).
_SHORTEST_MESSAGE = 11

# How the methods of RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903 and 6086 and a response begin,
# commonest first. Four bytes are one comparison; what a longer one would find more is no attack.
_KNOWN_STARTS = (
    b"REGI",
    b"SIP/",
    b"INVI",
    b"ACK ",
    b"BYE ",
    b"CANC",
    b"SUBS",
    b"NOTI",
    b"MESS",
    b"PUBL",
    b"INFO",
    b"PRAC",
    b"UPDA",
    b"REFE",
)
_OPTIONS = b"OPTIONS "


def scanner_chains(context: Context) -> list[Chain]:
    """Return the chains for strangers; none where unknown sources are denied."""
    if context.denied:
        return []
    chains = [_sources(context), _signature_chain(context)]
    scanners = context.policy.scanners
    if scanners.block_options or scanners.block_unknown_methods:
        chains.insert(0, _scanner_block(context))
    return chains


def strangers_ways(context: Context) -> list[Rule]:
    """Say where a packet goes that no trusted peer sent, before any lookup of its source.

    These rules end SIP_TRUSTED: a chain of their own would cost every stranger one more goto.
    """
    scanners = context.policy.scanners
    summary = "OPTIONS or no SIP: only of sources that the switch knows"
    rules = []
    if scanners.block_unknown_methods:
        origin = context.origin("scanners", "block_unknown_methods")
        words = _KNOWN_STARTS if scanners.block_options else (*_KNOWN_STARTS, _OPTIONS[:4])
        rules = [
            Rule(
                "scanner.request",
                (StartsWithOneOf(words),),
                Goto(names.SOURCES),
                "starts like a request or a response",
                origin,
            ),
            Rule(
                "scanner.probe",
                (Protocol(L4Proto.UDP),),
                Goto(names.SCANNER_BLOCK),
                summary,
                origin,
            ),
        ]
    elif scanners.block_options:
        origin = context.origin("scanners", "block_options")
        options = (PayloadAt(L4Proto.UDP, _OPTIONS),)
        rules = [Rule("scanner.probe", options, Goto(names.SCANNER_BLOCK), summary, origin)]
    rules.append(
        Rule(
            "trusted.others",
            (),
            Goto(names.SOURCES),
            "everything else, TCP among it",
            context.origin("scanners"),
        )
    )
    return rules


def _scanner_block(context: Context) -> Chain:
    scanners = context.policy.scanners
    rules = [_learned(context, "scanner.learned")] if context.learning else []
    if scanners.block_options:
        matches = (PayloadAt(L4Proto.UDP, _OPTIONS),) if scanners.block_unknown_methods else ()
        rules.append(_drop_options(context, L4Proto.UDP, matches))
    if scanners.block_unknown_methods:
        rules.append(
            Rule(
                "scanner.not-sip",
                (),
                Drop(),
                "starts with no SIP method",
                context.origin("scanners", "block_unknown_methods"),
            )
        )
    return Chain(
        names.SCANNER_BLOCK,
        Layer.SCANNER,
        "OPTIONS and what is no SIP: dropped without an answer, unless a known phone sent it",
        tuple(rules),
        Priority.RAW,
    )


def _learned(context: Context, rule_id: str) -> Rule:
    return Rule(
        rule_id,
        (InSet(names.SET_LEARNED),),
        Goto(names.LEARNED),
        "the switch accepted a request from here before",
        context.origin("learning"),
    )


def _drop_options(context: Context, proto: L4Proto, matches: tuple[Match, ...]) -> Rule:
    return Rule(
        f"scanner.options-{proto}",
        matches,
        Drop(),
        f"OPTIONS from an unknown source over {proto.upper()}",
        context.origin("scanners", "block_options"),
    )


def _sources(context: Context) -> Chain:
    """Banned before learned; nobody is both, success takes a source off the bans."""
    rules = []
    if context.bans:
        rules.append(
            Rule(
                "identity.banned",
                (InSet(names.SET_BANNED),),
                Goto(names.BANNED),
                "source is banned",
                context.origin("bans"),
            )
        )
    if context.learning:
        rules.append(_learned(context, "identity.learned"))
    rules += feed_rules(context)
    return Chain(
        names.SOURCES,
        Layer.SCANNER,
        "whose request it is: banned, learned, or one of the many",
        (*rules, *_aggregate(context)),
        Priority.RAW,
    )


def _aggregate(context: Context) -> list[Rule]:
    """A cap before the costly tests: a flood from a million spoofed addresses stops here."""
    rate = context.policy.limits.aggregate
    if rate is None:
        return [
            Rule(
                "scanner.uncapped",
                (),
                Goto(names.SIGNATURES),
                "no cap on unknown sources together",
                context.origin("limits", "aggregate"),
            )
        ]
    burst = max(
        1, rate.amount if rate.unit is TimeUnit.SECOND else rate.amount // rate.unit.seconds
    )
    origin = context.origin("limits", "aggregate")
    return [
        Rule(
            "aggregate.within",
            (RateWithin(rate, burst),),
            Goto(names.SIGNATURES),
            f"unknown sources together within {rate}",
            origin,
        ),
        Rule("aggregate.above", (), Drop(), f"unknown sources together above {rate}", origin),
    ]


def _signature_chain(context: Context) -> Chain:
    short = Rule(
        "scanner.short",
        (Protocol(L4Proto.UDP), ShorterThan(_SHORTEST_MESSAGE)),
        Drop(),
        "datagram too short to be SIP",
        context.origin("scanners"),
    )
    clean = Rule(
        "scanner.clean",
        (),
        Goto(names.RATE_LIMIT),
        "nothing of a scanner found: limit it",
        context.origin("limits", "unknown_sources"),
    )
    first = [short]
    if context.policy.scanners.block_options:
        first.append(_drop_options(context, L4Proto.TCP, (PayloadAt(L4Proto.TCP, _OPTIONS),)))
    signatures = _signatures(context)
    first += _at_start(context, [s for s in signatures if s.offset_zero])
    texts = _anywhere(context, [s for s in signatures if not s.offset_zero])
    return Chain(
        names.SIGNATURES,
        Layer.SCANNER,
        "texts that only scanners send; dropped without an answer",
        (*first, *texts, clean),
        Priority.RAW,
    )


def _signatures(context: Context) -> list[Signature]:
    scanners = context.policy.scanners
    if not scanners.signatures:
        return []
    agents = scanners.user_agents
    chosen = select(shipped_signatures(), agents.add, agents.remove, agents.optional).signatures
    if scanners.block_options:
        return [s for s in chosen if not (s.offset_zero and s.pattern.startswith(b"OPTIONS "))]
    return list(chosen)


def _at_start(context: Context, signatures: list[Signature]) -> list[Rule]:
    return [
        Rule(
            f"scanner.line.{signature.id}",
            (PayloadAt(L4Proto.UDP, signature.pattern),),
            Drop(),
            f"request line of {signature.text}",
            context.origin("scanners", "signatures"),
        )
        for signature in signatures
    ]


def _anywhere(context: Context, signatures: list[Signature]) -> list[Rule]:
    return [
        Rule(
            f"scanner.ua.{signature.id}",
            (PayloadContains(signature.pattern),),
            Drop(),
            f"scanner text {signature.text}",
            context.origin("scanners", "user_agents"),
        )
        for signature in signatures
    ]
