"""Layers for known sources: trusted peers, learned sources, banned ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.scanners import strangers_ways
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    InSet,
    L4Proto,
    Match,
    PayloadAt,
    PayloadContains,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.policy.model import Tier

ONE_ADDRESS = PrefixLengths(32, 128)

# One IPv6 customer holds at least a /64 and may pick any address in it (RFC 6177).
ONE_SOURCE = PrefixLengths(32, 64)

# What a banned source may still send, so that a framed customer logs in and is free. A REGISTER
# without credentials guesses nothing, and a spoofer's flood of them must leave the tokens of a
# login alone: it gets a bucket of its own (docs/decisions/0009-probation-in-two-steps.md). The
# source comes before the port: what it drops must not use up the tokens of a port.
_CALLS = (Rate(10, TimeUnit.SECOND), 20)
_LOGINS_OF_SOURCE = (Rate(1, TimeUnit.SECOND), 3)
_LOGINS_OF_PORT = (Rate(12, TimeUnit.MINUTE), 2)

# Part of both headers that carry a digest (RFC 3261, 20.7 and 20.28); blanks may precede the colon.
_CREDENTIALS = b"Authorization"

# The rule that every peer without restrictions meets; operators read its counter first.
_ACCEPT = "trusted.accept"


def known_chains(context: Context) -> list[Chain]:
    """Return the chains of the layers that this policy uses."""
    chains = [_trusted(context)]
    if _tiered(context):
        chains.append(_tiers(context))
    if context.learning:
        chains.append(_learned(context))
    if context.bans:
        chains.append(_banned(context))
        if _probation(context):
            chains.append(_guesses(context))
    return chains


def trusted_sets(context: Context) -> set[str]:
    """Name the peers' sets that this policy needs; see `sets.trusted`."""
    needed = {names.SET_TRUSTED}
    encrypted = {Transport.TLS, Transport.WS, Transport.WSS}
    for peer in context.policy.trusted_peers:
        transports = set(peer.transports)
        if peer.source_ports:
            if not transports or transports & {Transport.UDP, Transport.TCP}:
                needed.add(names.SET_TRUSTED_PORTS)
            if not transports or transports & encrypted:
                needed.add(names.SET_TRUSTED_TLS_PORTS)
        elif transports:
            if Transport.UDP in transports:
                needed.add(names.SET_TRUSTED_UDP)
            if Transport.TCP in transports:
                needed.add(names.SET_TRUSTED_TCP)
            if transports & encrypted:
                needed.add(names.SET_TRUSTED_TLS)
        elif peer.tier is not None:
            needed.add(names.SET_TRUSTED_TIERS)
    return needed


# Peers with a tier come first: a network of theirs may lie inside another peer's.
_PLACES: tuple[tuple[str, tuple[Match, ...]], ...] = (
    (names.SET_TRUSTED_TIERS, ()),
    (names.SET_TRUSTED, ()),
    (names.SET_TRUSTED_UDP, (Protocol(L4Proto.UDP),)),
    (names.SET_TRUSTED_TCP, (Protocol(L4Proto.TCP),)),
    (names.SET_TRUSTED_PORTS, ()),
)


def _trusted(context: Context) -> Chain:
    needed = trusted_sets(context)
    tiered = bool(_tiered(context))
    rules = [
        Rule(
            f"trusted.{name.removeprefix('trusted-')}" if name != names.SET_TRUSTED else _ACCEPT,
            (*matches, InSet(name, hot=True)),
            Goto(names.TIERS) if tiered and name != names.SET_TRUSTED else Done(),
            "trusted peer, delivered untouched",
            context.origin("trusted_peers"),
        )
        for name, matches in _PLACES
        if name in needed
    ]
    if context.denied:
        denied = context.origin("limits", "unknown_sources")
        rules.append(Rule("unknown.denied", (), Drop(), "unknown sources are denied", denied))
    else:
        rules += strangers_ways(context)
    return Chain(
        names.TRUSTED,
        Layer.TRUSTED,
        "carriers and customers: never limited, never banned",
        tuple(rules),
        Priority.RAW,
    )


def _tiered(context: Context) -> list[Tier]:
    return sorted({peer.tier for peer in context.policy.trusted_peers if peer.tier is not None})


def _tiers(context: Context) -> Chain:
    rules = []
    for tier in _tiered(context):
        calls = getattr(context.policy.tiers, tier).calls_per_second
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
            "trusted.within-tier",
            (),
            Done(),
            "trusted peer, delivered untouched",
            context.origin("trusted_peers"),
        )
    )
    return Chain(
        names.TIERS,
        Layer.TRUSTED,
        "new calls per second of peers with a tier",
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


def _probation(context: Context) -> bool:
    return context.policy.bans.probation and context.learning


def _banned(context: Context) -> Chain:
    if _probation(context):
        rules = _on_probation(context)
    else:
        rules = [Rule("banned.drop", (), Drop(), "banned source", context.origin("bans"))]
    return Chain(
        names.BANNED,
        Layer.BANNED,
        "banned sources, with a trickle of REGISTERs so that a framed customer gets free",
        tuple(rules),
        Priority.RAW,
    )


def _on_probation(context: Context) -> list[Rule]:
    origin = context.origin("bans", "probation")
    rate, burst = _CALLS
    return [
        Rule(
            "banned.drop",
            (PayloadAt(L4Proto.UDP, b"REGISTER ", negate=True),),
            Drop(),
            "banned source, not a REGISTER",
            origin,
        ),
        # A TCP source cannot be spoofed, so nobody is framed over TCP.
        Rule("banned.tcp", (Protocol(L4Proto.TCP),), Drop(), "banned source over TCP", origin),
        Rule(
            "banned.trickle",
            (RateAbove("trickle", rate, burst, ONE_SOURCE),),
            Drop(),
            "banned source, too many REGISTERs",
            origin,
        ),
        Rule(
            "banned.login",
            (PayloadContains(_CREDENTIALS),),
            Goto(names.GUESSES),
            "banned source, a login",
            origin,
        ),
        *_judged(context, "banned"),
    ]


def _guesses(context: Context) -> Chain:
    origin = context.origin("bans", "probation")
    (source_rate, source_burst), (port_rate, port_burst) = _LOGINS_OF_SOURCE, _LOGINS_OF_PORT
    return Chain(
        names.GUESSES,
        Layer.BANNED,
        "logins of banned sources: a password a second at most",
        (
            Rule(
                "guesses.source",
                (RateAbove("logins", source_rate, source_burst, ONE_SOURCE),),
                Drop(),
                "banned source, too many logins",
                origin,
            ),
            Rule(
                "guesses.port",
                (RateAbove("loginp", port_rate, port_burst, ONE_ADDRESS, with_port=True),),
                Drop(),
                "banned source, too many logins from one port",
                origin,
            ),
            *_judged(context, "guesses"),
        ),
        Priority.RAW,
    )


def _judged(context: Context, prefix: str) -> list[Rule]:
    origin = context.origin("bans", "probation")
    return [
        Rule(
            f"{prefix}.pending",
            (),
            UpdateSet(names.SET_PENDING),
            "banned source whose REGISTER the switch will judge",
            origin,
        ),
        Rule(
            f"{prefix}.probation",
            (),
            Done(),
            "banned source, one REGISTER on probation",
            origin,
        ),
    ]
