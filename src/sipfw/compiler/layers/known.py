"""Layers for known sources over UDP: trusted peers, learned sources, registered phones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.scanners import strangers_ways
from sipfw.compiler.layers.signatures import moved_rule, texts_rule
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    ONE_ADDRESS,
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
from sipfw.ruleset.rule import DeleteFromSet, Done, Drop, Goto, Rule, UpdateSet

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.policy.model import Tier
    from sipfw.ruleset.rule import Action

# Part of both headers that carry a digest (RFC 3261, 20.7 and 20.28); blanks may precede the colon.
CREDENTIALS = b"Authorization"

# Nobody is challenged for these (RFC 3261, 22.1), so they carry no guess.
UNCHALLENGED = (b"ACK ", b"CANC", b"SIP/")

# A registered phone has up to 50 logins at once with its lamp keys; a trunk 20 calls a second.
_LOGINS_OF_PORT = (Rate(20, TimeUnit.SECOND), 76)
# Phones that register, each with its first login: together, and each beyond that.
_LOGINS_OF_OTHERS = (Rate(20, TimeUnit.SECOND), 50)
_LOGINS_OF_NEW = (Rate(12, TimeUnit.MINUTE), 2)

# The rule that every peer without restrictions meets; operators read its counter first.
_ACCEPT = "trusted.accept"


def known_chains(context: Context) -> list[Chain]:
    """Return the chains of the layers that this policy uses."""
    chains = [_trusted(context)]
    if _tiered(context):
        chains.append(_tiers(context))
    if context.learning:
        chains += [
            _learned(context),
            _registered(context),
            _requests(context),
            _tools(context),
            *_login_buckets(context),
            _login(context),
        ]
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
        elif peer.tier is not None and context.policy.tiers.enforce:
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
    """Return the tiers that are enforced.

    A spoofer who knows a peer's port uses up its figure, so by default none is.
    """
    if not context.policy.tiers.enforce:
        return []
    return sorted({peer.tier for peer in context.policy.trusted_peers if peer.tier is not None})


def _tiers(context: Context) -> Chain:
    rules = []
    for tier in _tiered(context):
        calls = getattr(context.policy.tiers, tier).calls_per_second
        rules.append(
            Rule(
                f"trusted.tier-{tier}",
                (
                    PayloadAt(L4Proto.UDP, b"INVI"),
                    InSet(f"{names.TIER_SET_PREFIX}{tier}"),
                    # By port as well: what is forged from other ports must not use it up.
                    RateAbove(
                        tier, Rate(calls, TimeUnit.SECOND), 2 * calls, ONE_ADDRESS, with_port=True
                    ),
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


def _chain(name: str, summary: str, *rules: Rule) -> Chain:
    return Chain(name, Layer.LEARNED, summary, rules, Priority.RAW)


def _rule(
    context: Context, rule_id: str, matches: tuple[Match, ...], action: Action, summary: str
) -> Rule:
    return Rule(rule_id, matches, action, summary, context.origin("learning"))


def registered_rule(context: Context, rule_id: str) -> Rule:
    """Return the rule that lets a phone go on that has logged in from this very port."""
    return _rule(
        context,
        rule_id,
        (InSet(names.SET_REGISTERED),),
        Goto(names.REGISTERED),
        "address and port from which a phone has logged in",
    )


def _learned(context: Context) -> Chain:
    learning = context.policy.learning
    origin = context.origin("learning", "rate")
    ceiling = RateAbove("learn", learning.rate, learning.burst, context.source)
    return _chain(
        names.LEARNED,
        "sources that have logged in: generous limits",
        registered_rule(context, "learned.registered"),
        Rule("learned.ceiling", (ceiling,), Drop(), "learned source above its ceiling", origin),
        Rule("learned.others", (), Goto(names.REQUESTS), "other port of a learned source", origin),
    )


def _registered(context: Context) -> Chain:
    """A ceiling of its own: what is forged from other ports of the address leaves it alone."""
    learning = context.policy.learning
    origin = context.origin("learning", "rate")
    above = RateAbove("phone", learning.rate, learning.burst, ONE_ADDRESS, with_port=True)
    return _chain(
        names.REGISTERED,
        "phones that have logged in, by address and port: a ceiling for each",
        Rule("registered.ceiling", (above,), Drop(), "registered phone above its ceiling", origin),
        Rule("registered.requests", (), Goto(names.REQUESTS), "registered phone", origin),
    )


def _requests(context: Context) -> Chain:
    return _chain(
        names.REQUESTS,
        "what learned sources send: delivered; logins are looked at",
        moved_rule(context, "learned"),
        _rule(
            context,
            "learned.unchallenged",
            (StartsWithOneOf(UNCHALLENGED),),
            Done(),
            "learned source, delivered; carries no login",
        ),
        _rule(
            context,
            "learned.login",
            (PayloadContains(CREDENTIALS),),
            Goto(names.TOOLS),
            "learned source, a request with credentials",
        ),
        _rule(
            context,
            "learned.pending",
            (PayloadAt(L4Proto.UDP, b"REGI"),),
            UpdateSet(names.SET_PENDING),
            "REGISTER whose answer will be judged",
        ),
        bare_rule(context, "learned"),
        _rule(context, "learned.accept", (), Done(), "learned source, delivered"),
    )


def _tools(context: Context) -> Chain:
    """A good account may be in bad hands. The learning stays: one forged datagram would end it.

    What comes at once is judged before the first refusal is seen, so a bucket bounds it: of each
    port that has logged in, and of all others of the source together.
    """
    return _chain(
        names.TOOLS,
        "logins of learned sources: not with an attack tool, not too many at once",
        *texts_rule(context, "tools.texts"),
        _rule(
            context,
            "tools.registered",
            (InSet(names.SET_REGISTERED),),
            Goto(names.PORT_LOGINS),
            "a port that has logged in",
        ),
        _rule(
            context,
            "tools.source",
            (RateAbove("slogin", *_LOGINS_OF_OTHERS, context.source),),
            Goto(names.NEW_LOGINS),
            "more logins than its other ports have together",
        ),
        _rule(context, "tools.login", (), Goto(names.LOGIN), "no attack tool"),
    )


def _login_buckets(context: Context) -> list[Chain]:
    """A port beyond the common bucket still has its own, once the switch has challenged it.

    Else a flood of forged logins from other ports would keep a phone out that starts up.
    """
    return [
        _chain(
            names.PORT_LOGINS,
            "logins of a port that has logged in",
            _port_above(context, "tools.port", "plogin", _LOGINS_OF_PORT),
            _rule(context, "tools.port-login", (), Goto(names.LOGIN), "within its bucket"),
        ),
        _chain(
            names.NEW_LOGINS,
            "too many logins of ports that have not logged in: only challenged ones",
            _rule(
                context,
                "tools.challenged",
                (InSet(names.SET_CHALLENGED),),
                Goto(names.NEW_PORT_LOGINS),
                "a port that was just challenged",
            ),
            _rule(context, "tools.unchallenged", (), Drop(), "login without a challenge"),
        ),
        _chain(
            names.NEW_PORT_LOGINS,
            "logins of a port that was just challenged",
            _port_above(context, "tools.new-port", "nlogin", _LOGINS_OF_NEW),
            _rule(context, "tools.new-login", (), Goto(names.LOGIN), "within its bucket"),
        ),
    ]


def _port_above(context: Context, rule_id: str, name: str, bucket: tuple[Rate, int]) -> Rule:
    rate, burst = bucket
    above = RateAbove(name, rate, burst, ONE_ADDRESS, with_port=True)
    return _rule(context, rule_id, (above,), Drop(), f"one port, logins above {rate}")


def bare_rule(context: Context, prefix: str) -> Rule:
    """Return the rule that notes a request without credentials: it explains one challenge."""
    action, udp = UpdateSet(names.SET_BARE), Protocol(L4Proto.UDP)
    return _rule(context, f"{prefix}.bare", (udp,), action, "request without credentials")


def answered_rule(context: Context, prefix: str, proto: L4Proto = L4Proto.UDP) -> list[Rule]:
    """Return the rule that takes a login as the answer to the challenges before it."""
    if not context.bans:
        return []
    action, asked = DeleteFromSet(names.SET_UNANSWERED), (Protocol(proto),)
    return [_rule(context, f"{prefix}.answered", asked, action, "answers its challenges")]


def _login(context: Context) -> Chain:
    invite = PayloadAt(L4Proto.UDP, b"INVI")
    shut = _rule(
        context,
        "login.shut",
        (InSet(names.SET_SHUT),),
        Drop(),
        "too many wrong passwords from this port",
    )
    no_register = _rule(
        context,
        "login.no-register",
        (PayloadAt(L4Proto.UDP, b"REGI"), InSet(names.SET_NO_REGISTER)),
        Drop(),
        "too many challenges of this port",
    )
    return _chain(
        names.LOGIN,
        "requests with credentials: the switch's answer will be a judgement",
        *([shut, no_register] if context.bans else []),
        _rule(
            context,
            "login.pending",
            (PayloadAt(L4Proto.UDP, b"REGI"),),
            UpdateSet(names.SET_PENDING),
            "REGISTER whose answer will be judged",
        ),
        _rule(
            context,
            "login.dialling",
            (invite, InSet(names.SET_CHALLENGED)),
            UpdateSet(names.SET_DIALLING),
            "INVITE that answers a challenge",
        ),
        _rule(
            context,
            "login.ringing",
            (invite,),
            UpdateSet(names.SET_RINGING),
            "INVITE whose answer will be judged",
        ),
        *answered_rule(context, "login"),
        _rule(
            context,
            "login.noted",
            (Protocol(L4Proto.UDP),),
            UpdateSet(names.SET_LOGINS),
            "login whose answer will be judged",
        ),
        _rule(context, "login.accept", (), Done(), "login, delivered"),
    )
