"""Rate layer: fairness per source port, ceilings per source and subnet, the ban that follows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.known import ONE_ADDRESS, ONE_SOURCE
from sipfw.policy.model import HashLimit
from sipfw.ruleset.match import (
    L4Proto,
    PayloadAt,
    PrefixLengths,
    Protocol,
    Rate,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    TcpSyn,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, Jump, Record, Rule, UpdateSet
from sipfw.words import counted, span_text

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.policy.model import Bucket

# A site's usual allocation: a /24 or, in IPv6, a /48 (RFC 6177).
NEIGHBOURS = PrefixLengths(24, 48)

# UDP sources can be spoofed; a bound keeps an attacker from filling the ban set in a second.
_BAN_WRITES = Rate(100, TimeUnit.SECOND)
_BAN_BURST = 200

# Seconds of idleness after which a source's bucket is forgotten.
_IDLE = 60

_REQUESTS = (b"REGISTER ", b"INVITE ")


def rate_chains(context: Context) -> list[Chain]:
    """Return the rate chain and its helpers; none where unknown sources are denied."""
    if context.denied:
        return []
    chains = [_rate_limit(context)]
    if context.policy.limits.recent is not None:
        chains.append(_recent(context))
    if context.bans:
        chains.append(_ban(context))
    return chains


def _rate_limit(context: Context) -> Chain:
    limits = context.policy.limits
    rules: list[Rule] = []
    if limits.per_source is not None:
        # First, and before the per-port bucket: a flood from one port must reach the ban.
        rules.append(
            Rule(
                "rate.per-source",
                (_above(context, "source", limits.per_source, ONE_SOURCE),),
                Goto(names.BAN) if context.bans else Drop(),
                f"one source above {limits.per_source.rate}",
                context.origin("limits", "per_source"),
            )
        )
    if limits.hashlimit is not None:
        rules.append(
            Rule(
                "rate.hashlimit",
                (replace(_above(context, "port", limits.hashlimit, ONE_ADDRESS), with_port=True),),
                Drop(),
                f"one source and port above {limits.hashlimit.rate}",
                context.origin("limits", "hashlimit"),
            )
        )
    if limits.per_subnet is not None:
        rules.append(
            Rule(
                "rate.per-subnet",
                (_above(context, "subnet", limits.per_subnet, NEIGHBOURS),),
                Drop(),
                f"one /24 or /48 above {limits.per_subnet.rate}",
                context.origin("limits", "per_subnet"),
            )
        )
    rules += _recent_calls(context)
    rules += _methods(context)
    rules += _pending(context)
    rules.append(
        Rule(
            "rate.accept", (), Done(), "unknown source within its limits", context.origin("limits")
        )
    )
    return Chain(
        names.RATE_LIMIT,
        Layer.RATE,
        "unknown sources: limits per port, source and subnet",
        tuple(rules),
        Priority.RAW,
    )


def _above(context: Context, name: str, bucket: Bucket, prefix: PrefixLengths) -> RateAbove:
    expire = bucket.expire if isinstance(bucket, HashLimit) else _IDLE
    plain = RateAbove(name, bucket.rate, bucket.burst, prefix, expire=expire)
    return replace(plain, table_size=context.buckets(plain.lifetime))


def _recent_calls(context: Context) -> list[Rule]:
    if context.policy.limits.recent is None:
        return []
    origin = context.origin("limits", "recent")
    summary = "requests of one source in the window"
    rules = [
        Rule(
            f"rate.recent-{start.decode().strip().lower()}",
            (PayloadAt(L4Proto.UDP, start),),
            Jump(names.RECENT),
            summary,
            origin,
        )
        for start in _REQUESTS
    ]
    rules.append(Rule("rate.recent-connect", (TcpSyn(),), Jump(names.RECENT), summary, origin))
    return rules


def _methods(context: Context) -> list[Rule]:
    methods = context.policy.limits.methods
    named = {
        "register": (methods.register_, b"REGISTER "),
        "invite": (methods.invite, b"INVITE "),
        "options": (methods.options, b"OPTIONS "),
    }
    rules = [
        Rule(
            f"rate.method-{name}",
            (
                PayloadAt(L4Proto.UDP, start),
                _above(context, f"m-{name[:3]}", bucket, ONE_SOURCE),
            ),
            Drop(),
            f"{name.upper()} of one source above {bucket.rate}",
            context.origin("limits", "methods", name),
        )
        for name, (bucket, start) in named.items()
        if bucket is not None
    ]
    if methods.other is not None:
        rules.append(
            Rule(
                "rate.method-other",
                (
                    Protocol(L4Proto.UDP),
                    *(PayloadAt(L4Proto.UDP, start, negate=True) for _, start in named.values()),
                    _above(context, "m-oth", methods.other, ONE_SOURCE),
                ),
                Drop(),
                f"other requests of one source above {methods.other.rate}",
                context.origin("limits", "methods", "other"),
            )
        )
    return rules


def _pending(context: Context) -> list[Rule]:
    """Remember who asked, so that the switch's answer can be taken as a judgement of it."""
    if not context.learning:
        return []
    origin = context.origin("learning")
    rules = [
        Rule(
            f"rate.pending-{start.decode().strip().lower()}",
            (PayloadAt(L4Proto.UDP, start),),
            UpdateSet(names.SET_PENDING),
            f"{start.decode().strip()} whose answer will be judged",
            origin,
        )
        for start in _REQUESTS
    ]
    rules.append(
        Rule(
            "rate.pending-tcp",
            (Protocol(L4Proto.TCP),),
            UpdateSet(names.SET_PENDING),
            "TCP request whose answer will be judged",
            origin,
        )
    )
    return rules


def _recent(context: Context) -> Chain:
    recent = context.policy.limits.recent
    if recent is None:
        raise AssertionError("the caller checks limits.recent")
    origin = context.origin("limits", "recent")
    requests = counted(recent.hits, "request")
    return Chain(
        names.RECENT,
        Layer.RATE,
        "at most so many requests of one source in the window",
        (
            Rule(
                "recent.exceeded",
                (
                    SeenAtLeast(
                        names.LIST_RECENT,
                        recent.hits,
                        recent.seconds,
                        context.buckets(recent.seconds),
                    ),
                ),
                Drop(),
                f"more than {requests} of one source in {span_text(recent.seconds)}",
                origin,
            ),
            Rule(
                "recent.record",
                (),
                Record(names.LIST_RECENT),
                "request noted for the window",
                origin,
            ),
        ),
        Priority.RAW,
    )


def _ban(context: Context) -> Chain:
    origin = context.origin("bans")
    return Chain(
        names.BAN,
        Layer.BANNED,
        "a source that keeps exceeding its ceiling is banned, at a bounded rate",
        (
            Rule(
                "ban.add",
                (RateWithin(_BAN_WRITES, _BAN_BURST),),
                UpdateSet(names.SET_BANNED),
                "source banned for exceeding its ceiling",
                origin,
            ),
            Rule("ban.drop", (), Drop(), "packet that led to a ban", origin),
        ),
        Priority.RAW,
    )
