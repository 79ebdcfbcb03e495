"""Scanner layer: what no ordinary phone sends, cheapest test first; only drops, never bans.

A blind spoofer can write a customer's address into a scanner packet, so a ban here would be a
weapon against customers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.policy.signatures import Signature, select, shipped_signatures
from sipfw.ruleset.match import (
    L4Proto,
    PayloadAt,
    PayloadContains,
    Protocol,
    RateWithin,
    ShorterThan,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Drop, Jump, Return, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context

# "SIP/2.0 200" and "BYE sip:a@b" have 11 bytes; less is no SIP message (RFC 3261, 7.1 and 7.2).
_SHORTEST_MESSAGE = 11

# Methods of RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903, 6086, commonest first, and the
# beginning of a response.
_KNOWN_STARTS = (
    b"REGISTER ",
    b"SIP/2.0 ",
    b"INVITE ",
    b"ACK ",
    b"BYE ",
    b"CANCEL ",
    b"SUBSCRIBE ",
    b"NOTIFY ",
    b"OPTIONS ",
    b"MESSAGE ",
    b"PUBLISH ",
    b"INFO ",
    b"PRACK ",
    b"UPDATE ",
    b"REFER ",
)


def scanner_chains(context: Context) -> list[Chain]:
    """Return the scanner chain and its two helpers; none where unknown sources are denied."""
    if context.denied:
        return []
    chains = [_scanner_block(context)]
    if context.policy.scanners.block_unknown_methods:
        chains.append(_methods(context))
    if context.policy.limits.aggregate is not None:
        chains.append(_aggregate(context))
    return chains


def _scanner_block(context: Context) -> Chain:
    scanners = context.policy.scanners
    rules = [
        Rule(
            "scanner.short",
            (Protocol(L4Proto.UDP), ShorterThan(_SHORTEST_MESSAGE)),
            Drop(),
            "datagram too short to be SIP",
            context.origin("scanners"),
        )
    ]
    if scanners.block_options:
        rules += [
            Rule(
                f"scanner.options-{proto}",
                (PayloadAt(proto, b"OPTIONS "),),
                Drop(),
                f"OPTIONS from an unknown source over {proto.upper()}",
                context.origin("scanners", "block_options"),
            )
            for proto in (L4Proto.UDP, L4Proto.TCP)
        ]
    if scanners.block_unknown_methods:
        rules.append(
            Rule(
                "scanner.methods",
                (Protocol(L4Proto.UDP),),
                Jump(names.METHODS),
                "is it a SIP message at all?",
                context.origin("scanners", "block_unknown_methods"),
            )
        )
    chosen = _signatures(context)
    rules += _at_start(context, [s for s in chosen if s.offset_zero])
    if context.policy.limits.aggregate is not None:
        rules.append(
            Rule(
                "scanner.aggregate",
                (),
                Jump(names.AGGREGATE),
                "all unknown sources together",
                context.origin("limits", "aggregate"),
            )
        )
    rules += _anywhere(context, [s for s in chosen if not s.offset_zero])
    rules.append(
        Rule(
            "scanner.clean", (), Return(), "nothing of a scanner found", context.origin("scanners")
        )
    )
    return Chain(
        names.SCANNER_BLOCK,
        Layer.SCANNER,
        "what only scanners send; dropped without an answer",
        tuple(rules),
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


def _methods(context: Context) -> Chain:
    origin = context.origin("scanners", "block_unknown_methods")
    rules = [
        Rule(
            f"methods.{start.decode().strip().lower().replace('/', '-')}",
            (PayloadAt(L4Proto.UDP, start),),
            Return(),
            f"starts with {start.decode().strip()}",
            origin,
        )
        for start in _KNOWN_STARTS
        if not (start == b"OPTIONS " and context.policy.scanners.block_options)
    ]
    rules.append(Rule("methods.unknown", (), Drop(), "not a SIP message", origin))
    return Chain(
        names.METHODS,
        Layer.SCANNER,
        "the methods that exist",
        tuple(rules),
        Priority.RAW,
    )


def _aggregate(context: Context) -> Chain:
    """A cap before the costly tests: a flood from a million spoofed addresses stops here."""
    rate = context.policy.limits.aggregate
    if rate is None:
        raise AssertionError("the caller checks limits.aggregate")
    burst = max(
        1, rate.amount if rate.unit is TimeUnit.SECOND else rate.amount // rate.unit.seconds
    )
    origin = context.origin("limits", "aggregate")
    return Chain(
        names.AGGREGATE,
        Layer.SCANNER,
        "a cap on all unknown sources together, before the costly tests",
        (
            Rule(
                "aggregate.within", (RateWithin(rate, burst),), Return(), f"within {rate}", origin
            ),
            Rule("aggregate.above", (), Drop(), f"unknown sources together above {rate}", origin),
        ),
        Priority.RAW,
    )
