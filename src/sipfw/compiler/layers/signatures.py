"""Signatures: texts of attack tools, and texts that would make the switch's echo teach.

A switch repeats Call-ID, From and Via of a request in its answer. A request that is no REGISTER but
has the end of a REGISTER's CSeq line in one of them would come back as the success of a REGISTER,
so it is refused here, where nothing has been echoed yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.policy.signatures import Signature, select, shipped_signatures
from sipfw.ruleset.match import (
    L4Proto,
    MovedPayload,
    PayloadAt,
    PayloadContains,
    Protocol,
    ShorterThan,
    StartsWithOneOf,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Drop, Goto, Jump, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import Match
    from sipfw.ruleset.rule import Action

# "SIP/2.0 200" and "BYE sip:a@b" have 11 bytes; less is no SIP message (RFC 3261, 7.1 and 7.2).
_SHORTEST_MESSAGE = 11

DIGITS = "0123456789"


def signature_chains(context: Context) -> list[Chain]:
    """Return the chains that look into the text of strangers' datagrams."""
    chains = [_signature_chain(context), *_texts(context)]
    return [*chains, *_echo_chains(context)] if context.learning else chains


def _signature_chain(context: Context) -> Chain:
    short = Rule(
        "scanner.short",
        (Protocol(L4Proto.UDP), ShorterThan(_SHORTEST_MESSAGE)),
        Drop(),
        "datagram too short to be SIP",
        context.origin("scanners"),
    )
    limited = _clean(context, "scanner.clean")
    ways = [limited]
    if context.learning:
        ways = [
            _way(context, "scanner.register", (b"REGI",), Goto(names.RATE_LIMIT)),
            # RFC 3262, 7.2: RAck names the INVITE's CSeq line.
            _way(context, "scanner.invite", (b"INVI", b"PRAC"), Goto(names.ECHO)),
            Rule(
                "scanner.other",
                (),
                Goto(names.ECHO_METHODS),
                "another method",
                context.origin("learning"),
            ),
        ]
    lines = at_start(context, L4Proto.UDP, Drop())
    return Chain(
        names.SIGNATURES,
        Layer.SCANNER,
        "texts that only scanners send; dropped without an answer",
        (
            moved_rule(context, "scanner"),
            short,
            *lines,
            *texts_rule(context, "scanner.texts"),
            *ways,
        ),
        Priority.RAW,
    )


def moved_rule(context: Context, prefix: str) -> Rule:
    """Return the rule against a payload that is not where the rules look.

    Only what may pass on is asked: the lookup of the first word may have met other bytes, and what
    is dropped by them is dropped.
    """
    return Rule(
        f"{prefix}.moved",
        (MovedPayload(),),
        Drop(),
        "IP options or extension headers before SIP",
        context.origin("scanners"),
    )


def _clean(context: Context, rule_id: str) -> Rule:
    return Rule(
        rule_id,
        (),
        Goto(names.RATE_LIMIT),
        "nothing of a scanner found: limit it",
        context.origin("limits", "unknown_sources"),
    )


def _way(context: Context, rule_id: str, words: tuple[bytes, ...], action: Action) -> Rule:
    said = " or ".join(word.decode() for word in words)
    matches: tuple[Match, ...] = (StartsWithOneOf(words),)
    return Rule(rule_id, matches, action, f"starts with {said}", context.origin("learning"))


def texts_rule(context: Context, rule_id: str) -> list[Rule]:
    """Return the rule that asks for the texts of attack tools; none where the policy has none."""
    if not anywhere(context, "", Drop()):
        return []
    origin = context.origin("scanners", "signatures")
    return [Rule(rule_id, (), Jump(names.TEXTS), "texts of attack tools", origin)]


def _texts(context: Context) -> list[Chain]:
    rules = anywhere(context, "scanner.ua", Drop())
    summary = "texts of attack tools"
    return [Chain(names.TEXTS, Layer.SCANNER, summary, tuple(rules), Priority.RAW)] if rules else []


def _chosen(context: Context) -> list[Signature]:
    scanners = context.policy.scanners
    if not scanners.signatures:
        return []
    agents = scanners.user_agents
    return list(select(shipped_signatures(), agents.add, agents.remove, agents.optional).signatures)


def at_start(
    context: Context, proto: L4Proto, action: Action, prefix: str = "scanner.line"
) -> list[Rule]:
    """Return a rule for each text that a tool's message begins with."""
    blocked = context.policy.scanners.block_options
    return [
        Rule(
            f"{prefix}.{signature.id}",
            (PayloadAt(proto, signature.pattern),),
            action,
            f"request line of {signature.text}",
            context.origin("scanners", "signatures"),
        )
        for signature in _chosen(context)
        if signature.offset_zero and not (blocked and signature.pattern.startswith(b"OPTIONS "))
    ]


def anywhere(context: Context, prefix: str, action: Action) -> list[Rule]:
    """Return a rule for each text that may stand anywhere in a tool's message."""
    return [
        Rule(
            f"{prefix}.{signature.id}",
            (PayloadContains(signature.pattern),),
            action,
            f"scanner text {signature.text}",
            context.origin("scanners", "user_agents"),
        )
        for signature in _chosen(context)
        if not signature.offset_zero
    ]


def _echo_chains(context: Context) -> list[Chain]:
    return [
        _echo(context, names.ECHO, "echo.register", ("REGISTER",)),
        _echo(context, names.ECHO_METHODS, "echo.method", ("REGISTER", "INVITE")),
        _refuse_echo(context, names.ECHO_REGISTER, "REGISTER"),
        _refuse_echo(context, names.ECHO_INVITE, "INVITE"),
    ]


def _echo(context: Context, name: str, prefix: str, methods: tuple[str, ...]) -> Chain:
    """Look closer at who names a method, which most requests do in Allow."""
    looks = {"REGISTER": names.ECHO_REGISTER, "INVITE": names.ECHO_INVITE}
    rules = [
        Rule(
            f"{prefix}-{method.lower()}",
            (PayloadContains(method.encode()),),
            # An INVITE's text may name both; its own chain looks for both.
            Goto(looks[methods[-1]]),
            f"names {method}",
            context.origin("learning"),
        )
        for method in methods
    ]
    clean = _clean(context, f"{prefix}-clean")
    return Chain(
        name,
        Layer.SCANNER,
        "requests that name a method",
        (*rules, clean),
        Priority.RAW,
    )


def _refuse_echo(context: Context, name: str, last: str) -> Chain:
    """Refuse what an answer would repeat as the end of a CSeq line: a digit, a blank, a method."""
    methods = ("REGISTER",) if last == "REGISTER" else ("REGISTER", "INVITE")
    prefix = f"echo.{last.lower()}"
    rules = [
        Rule(
            f"{prefix}-{method[:3].lower()}{digit}",
            (PayloadContains(f"{digit} {method}".encode()),),
            Drop(),
            f"would be echoed as the success of {method}",
            context.origin("learning"),
        )
        for method in methods
        for digit in DIGITS
    ]
    clean = _clean(context, f"{prefix}-passed")
    return Chain(
        name,
        Layer.SCANNER,
        f"texts that an answer would repeat as the end of a CSeq line of {' or '.join(methods)}",
        (*rules, clean),
        Priority.RAW,
    )
