"""Layers for known sources: trusted peers, learned sources, banned ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.ruleset.match import (
    InSet,
    L4Proto,
    PayloadAt,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context

ONE_ADDRESS = PrefixLengths(32, 128)

# One IPv6 customer holds at least a /64 and may pick any address in it (RFC 6177).
ONE_SOURCE = PrefixLengths(32, 64)

# A framed customer's phone retries every few seconds and logs in; a guesser gets 12 a minute.
# The source comes first: what it drops must not use up the tokens of a port.
_TRICKLE_PORT = (Rate(12, TimeUnit.MINUTE), 2)
_TRICKLE_SOURCE = (Rate(1, TimeUnit.SECOND), 3)


def known_chains(context: Context) -> list[Chain]:
    """Return the chains of the layers that this policy uses."""
    chains = [_trusted(context)]
    if context.learning:
        chains.append(_learned(context))
    if context.bans:
        chains.append(_banned(context))
    return chains


def _trusted(context: Context) -> Chain:
    policy = context.policy
    rules = []
    for tier in sorted({peer.tier for peer in policy.trusted_peers if peer.tier is not None}):
        calls = getattr(policy.tiers, tier).calls_per_second
        rules.append(
            Rule(
                f"trusted.tier-{tier}",
                (
                    PayloadAt(L4Proto.UDP, b"INVITE "),
                    InSet(f"{names.TIER_SET_PREFIX}{tier}"),
                    RateAbove(tier, Rate(calls, TimeUnit.SECOND), 2 * calls, ONE_ADDRESS),
                ),
                Drop(),
                f"more than {calls} new calls per second, tier {tier}",
                context.origin("tiers", tier, "calls_per_second"),
            )
        )
    rules.append(
        Rule(
            "trusted.accept",
            (),
            Done(),
            "trusted peer, delivered untouched",
            context.origin("trusted_peers"),
        )
    )
    return Chain(
        names.TRUSTED,
        Layer.TRUSTED,
        "carriers and customers: never limited, never banned",
        tuple(rules),
        Priority.RAW,
    )


def _learned(context: Context) -> Chain:
    learning = context.policy.learning
    origin = context.origin("learning", "rate")
    return Chain(
        names.LEARNED,
        Layer.LEARNED,
        "sources that the switch itself accepted: generous limits",
        (
            Rule(
                "learned.ceiling",
                (RateAbove("learn", learning.rate, learning.burst, ONE_ADDRESS),),
                Drop(),
                "learned source above its ceiling",
                origin,
            ),
            Rule("learned.accept", (), Done(), "learned source, delivered", origin),
        ),
        Priority.RAW,
    )


def _banned(context: Context) -> Chain:
    origin = context.origin("bans")
    if not (context.policy.bans.probation and context.learning):
        rules = [Rule("banned.drop", (), Drop(), "banned source", origin)]
    else:
        rules = _probation(context)
    return Chain(
        names.BANNED,
        Layer.BANNED,
        "banned sources, with a trickle of REGISTERs so that a framed customer gets free",
        tuple(rules),
        Priority.RAW,
    )


def _probation(context: Context) -> list[Rule]:
    origin = context.origin("bans", "probation")
    (port_rate, port_burst), (source_rate, source_burst) = _TRICKLE_PORT, _TRICKLE_SOURCE
    return [
        # A TCP source cannot be spoofed, so nobody is framed over TCP.
        Rule("banned.tcp", (Protocol(L4Proto.TCP),), Drop(), "banned source over TCP", origin),
        Rule(
            "banned.drop",
            (PayloadAt(L4Proto.UDP, b"REGISTER ", negate=True),),
            Drop(),
            "banned source, not a REGISTER",
            origin,
        ),
        Rule(
            "banned.trickle-source",
            (RateAbove("tricks", source_rate, source_burst, ONE_SOURCE),),
            Drop(),
            "banned source, too many REGISTERs",
            origin,
        ),
        Rule(
            "banned.trickle-port",
            (RateAbove("trickp", port_rate, port_burst, ONE_ADDRESS, with_port=True),),
            Drop(),
            "banned source, too many REGISTERs from one port",
            origin,
        ),
        Rule(
            "banned.pending",
            (),
            UpdateSet(names.SET_PENDING),
            "banned source whose REGISTER the switch will judge",
            origin,
        ),
        Rule("banned.probation", (), Done(), "banned source, one REGISTER on probation", origin),
    ]
