"""Scanner layer: sorts out who is no trusted peer, cheapest test first; drops, never bans.

A blind spoofer can write a customer's address into a scanner packet, so a ban here would be a
weapon against customers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.crowd import DATAGRAMS, stranger_rules
from sipfw.compiler.layers.feeds import feed_rules
from sipfw.compiler.layers.signatures import DIGITS, moved_rule, signature_chains
from sipfw.ruleset.match import (
    InSet,
    L4Proto,
    Match,
    PayloadAt,
    PayloadContains,
    Protocol,
    Rate,
    RateAbove,
    StartsWithOneOf,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.rule import Origin

# How the methods of RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903 and 6086 begin, commonest first.
# Four bytes are one comparison; what a longer one would find more is no attack.
KNOWN_STARTS = (
    b"REGI",
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
OPTIONS = b"OPTI"
_WITHIN_CALLS = (b"ACK ", b"BYE ", b"CANC", b"INFO", b"PRAC", b"UPDA")
RESPONSE = b"SIP/"

# What the switch has asked may be answered. More than a switch dials, less than a flood.
_ANSWERS = (Rate(500, TimeUnit.SECOND), 1000)


def scanner_chains(context: Context) -> list[Chain]:
    """Return the chains for strangers; none where unknown sources are denied."""
    if context.denied:
        return []
    chains = [_sources(context), *signature_chains(context)]
    if context.learning:
        chains.insert(0, _callers(context))
    scanners = context.policy.scanners
    if scanners.block_options or scanners.block_unknown_methods:
        chains.insert(0, _scanner_block(context))
    if context.learning:
        chains[:0] = _answers(context)
    return chains


def strangers_ways(context: Context) -> list[Rule]:
    """Say where a packet goes that no trusted peer sent, before any lookup of its source.

    These rules end SIP_TRUSTED: a chain of their own would cost every stranger one more goto.
    """
    scanners = context.policy.scanners
    rules = []
    if scanners.block_unknown_methods:
        origin = context.origin("scanners", "block_unknown_methods")
        within = _WITHIN_CALLS if context.learning else ()
        words = tuple(word for word in KNOWN_STARTS if word not in within)
        words = words if scanners.block_options else (*words, OPTIONS)
        rules += [
            _to_sources((StartsWithOneOf(words),), "starts like a request", origin),
            *_to_calls(context),
            *_to_answers(context),
            _to_block((Protocol(L4Proto.UDP),), origin),
        ]
    else:
        origin = context.origin("scanners", "block_options")
        rules += _to_answers(context)
        if scanners.block_options:
            rules.append(_to_block((PayloadAt(L4Proto.UDP, OPTIONS),), origin))
        udp = (Protocol(L4Proto.UDP),)
        rules += _to_calls(context)
        rules.append(_to_sources(udp, "every other datagram", origin))
    rules.append(
        Rule(
            "trusted.others",
            (),
            Goto(names.STREAMS),
            "TCP",
            context.origin("scanners"),
        )
    )
    return rules


def _to_sources(matches: tuple[Match, ...], summary: str, origin: Origin) -> Rule:
    return Rule("scanner.request", matches, Goto(names.SOURCES), summary, origin)


def _to_calls(context: Context) -> list[Rule]:
    """Let a call go on while strangers exceed their cap; nothing else pays for the question."""
    if not context.learning:
        return []
    origin = context.origin("learning")
    words = StartsWithOneOf(_WITHIN_CALLS)
    answered = "within a call that the switch has answered"
    return [
        Rule(
            "scanner.call", (words, InSet(names.SET_CALLERS)), Goto(names.CALLERS), answered, origin
        ),
        Rule("scanner.others-call", (words,), Goto(names.SOURCES), "starts like one", origin),
    ]


def _to_answers(context: Context) -> list[Rule]:
    """Lead responses to who was asked; without learning nobody knows, and they are limited."""
    chain = names.ANSWERS if context.learning else names.SOURCES
    origin = context.origin("learning")
    matches = (StartsWithOneOf((RESPONSE,)),)
    return [Rule("scanner.response", matches, Goto(chain), "starts like a response", origin)]


def _to_block(matches: tuple[Match, ...], origin: Origin) -> Rule:
    summary = "OPTIONS or no SIP: only of sources that the switch knows"
    return Rule("scanner.probe", matches, Goto(names.SCANNER_BLOCK), summary, origin)


def _answers(context: Context) -> list[Chain]:
    """Only who was asked may answer: proxies forward a response to whom its second Via names."""
    origin = context.origin("learning")
    rate, burst = _ANSWERS
    return [
        Chain(
            names.ANSWERS,
            Layer.SCANNER,
            "responses: of sources that the switch has asked",
            (
                Rule(
                    "answers.asked",
                    (InSet(names.SET_ASKED),),
                    Goto(names.ASKED),
                    "the switch has sent a request there",
                    origin,
                ),
                Rule(
                    "answers.learned",
                    (InSet(names.SET_LEARNED),),
                    Goto(names.LEARNED),
                    "response of a learned source",
                    origin,
                ),
                Rule("answers.drop", (), Drop(), "response that nobody asked for", origin),
            ),
            Priority.RAW,
        ),
        Chain(
            names.ASKED,
            Layer.LEARNED,
            "what the switch has asked is answered, whoever is asked",
            (
                moved_rule(context, "asked"),
                Rule(
                    "asked.ceiling",
                    (RateAbove("asked", rate, burst, context.source),),
                    Drop(),
                    f"responses above {rate}",
                    origin,
                ),
                Rule(
                    "asked.method",
                    (PayloadContains(b"REGISTER"),),
                    Goto(names.ASKED_METHOD),
                    "names REGISTER, in Allow mostly",
                    origin,
                ),
                Rule("asked.accept", (), Done(), "response, delivered", origin),
            ),
            Priority.RAW,
        ),
        *_asked_to_register(context),
    ]


def _asked_to_register(context: Context) -> list[Chain]:
    """Let only those answer a REGISTER to whom the switch has sent one.

    A proxy forwards an answer to its second Via: whoever gets himself asked anything would let
    his own REGISTER succeed.
    """
    origin = context.origin("learning")
    ends = [
        Rule(
            f"asked.register-{digit}",
            (PayloadContains(f"{digit} REGISTER".encode()),),
            Goto(names.ASKED_REGISTER),
            "answer to a REGISTER",
            origin,
        )
        for digit in DIGITS
    ]
    accept = Rule("asked.other", (), Done(), "answer to another request", origin)
    asked = Rule(
        "asked.to-register",
        (InSet(names.SET_ASKED_REGISTER),),
        Done(),
        "the switch has sent a REGISTER there",
        origin,
    )
    drop = Rule("asked.forged", (), Drop(), "answer to a REGISTER that nobody sent", origin)
    summary = "answers to REGISTERs: of those whom the switch has sent one"
    return [
        Chain(names.ASKED_METHOD, Layer.LEARNED, summary, (*ends, accept), Priority.RAW),
        Chain(names.ASKED_REGISTER, Layer.LEARNED, summary, (asked, drop), Priority.RAW),
    ]


def _scanner_block(context: Context) -> Chain:
    scanners = context.policy.scanners
    rules = []
    if context.learning:
        caller = Rule(
            "scanner.caller",
            (PayloadAt(L4Proto.UDP, OPTIONS), InSet(names.SET_CALLERS)),
            Goto(names.SIGNATURES),
            "the switch has answered a call from here: a stranger, who may ask whether it is there",
            context.origin("learning"),
        )
        rules = [_learned(context, "scanner.learned"), caller]
    if scanners.block_options:
        matches = (PayloadAt(L4Proto.UDP, OPTIONS),) if scanners.block_unknown_methods else ()
        rules.append(
            Rule(
                "scanner.options-udp",
                matches,
                Drop(),
                "OPTIONS from an unknown source over UDP",
                context.origin("scanners", "block_options"),
            )
        )
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
        "somebody has logged in from here",
        context.origin("learning"),
    )


def _sources(context: Context) -> Chain:
    return Chain(
        names.SOURCES,
        Layer.SCANNER,
        "whose request it is: banned, learned, or one of the many",
        (*_identity(context, "identity"), *stranger_rules(context, DATAGRAMS)),
        Priority.RAW,
    )


def _callers(context: Context) -> Chain:
    summary = "within a call that the switch has answered"
    origin = context.origin("learning")
    others = Rule("callers.others", (), Goto(names.SIGNATURES), summary, origin)
    return Chain(
        names.CALLERS,
        Layer.SCANNER,
        "callers, within their calls: under no cap for all strangers",
        (*_identity(context, "callers"), others),
        Priority.RAW,
    )


def _identity(context: Context, prefix: str) -> list[Rule]:
    """Banned before learned: who is both has guessed, and its registered phones go on."""
    rules = []
    if context.bans:
        rules.append(
            Rule(
                f"{prefix}.banned",
                (InSet(names.SET_BANNED),),
                Goto(names.BANNED),
                "source is banned",
                context.origin("bans"),
            )
        )
    if context.learning:
        rules.append(_learned(context, f"{prefix}.learned"))
    return rules + feed_rules(context, "" if prefix == "identity" else f".{prefix}")
