"""Rate layer: fairness per source port, ceilings per source and subnet, the ban that follows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.known import CREDENTIALS, UNCHALLENGED, bare_rule
from sipfw.policy.model import HashLimit
from sipfw.ruleset.match import (
    ONE_ADDRESS,
    InSet,
    L4Proto,
    PayloadAt,
    PayloadContains,
    PrefixLengths,
    Rate,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    StartsWithOneOf,
    TimeUnit,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, Jump, Record, Rule, UpdateSet
from sipfw.words import format_duration, pluralize

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.policy.model import Bucket

# A site's usual allocation: a /24 or, in IPv6, a /48 (RFC 6177).
NEIGHBOURS = PrefixLengths(24, 48)

# UDP sources can be spoofed; a bound keeps an attacker from filling the ban set in a second.
_BAN_WRITES = Rate(100, TimeUnit.SECOND)
_BAN_BURST = 200

# What comes at once is judged before the first refusal is seen. An office that starts up has so
# many, with the lamp keys of its phones.
_LOGINS = (Rate(60, TimeUnit.SECOND), 150)

# Seconds of idleness after which a source's bucket is forgotten.
_IDLE = 60

# Four bytes, as the switch is let in by them: some take `INVIte` for an INVITE.
_REQUESTS = {"register": b"REGI", "invite": b"INVI"}


def rate_chains(context: Context) -> list[Chain]:
    """Return the rate chain and its helpers; none where unknown sources are denied."""
    if context.denied:
        return []
    chains = [_rate_limit(context)]
    if context.learning:
        chains.append(_stranger_login(context))
    if _other(context):
        chains.append(
            Chain(
                names.NOTES,
                Layer.RATE,
                "what the switch's answer will be judged by",
                tuple(_notes(context)),
                Priority.RAW,
            )
        )
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
                (_above(context, "source", limits.per_source, context.source),),
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
    rules += _other(context) or _notes(context)
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
    return [
        Rule(
            f"rate.recent-{method}",
            (PayloadAt(L4Proto.UDP, start),),
            Jump(names.RECENT),
            summary,
            origin,
        )
        for method, start in _REQUESTS.items()
    ]


def _methods(context: Context) -> list[Rule]:
    methods = context.policy.limits.methods
    named = {
        "register": (methods.register_, b"REGI"),
        "invite": (methods.invite, b"INVI"),
        "options": (methods.options, b"OPTI"),
    }
    return [
        Rule(
            f"rate.method-{name}",
            (
                PayloadAt(L4Proto.UDP, start),
                _above(context, f"m-{name[:3]}", bucket, context.source),
            ),
            Drop(),
            f"{name.upper()} of one source above {bucket.rate}",
            context.origin("limits", "methods", name),
        )
        for name, (bucket, start) in named.items()
        if bucket is not None
    ]


def _other(context: Context) -> list[Rule]:
    """Limit what has no limit of its own. Asked last: what is too short to compare is among it."""
    bucket = context.policy.limits.methods.other
    if bucket is None:
        return []
    origin = context.origin("limits", "methods", "other")
    return [
        Rule(
            "rate.method-named",
            (StartsWithOneOf((b"REGI", b"INVI", b"OPTI")),),
            Goto(names.NOTES),
            "REGISTER, INVITE and OPTIONS have limits of their own",
            origin,
        ),
        Rule(
            "rate.method-other",
            (_above(context, "m-oth", bucket, context.source),),
            Drop(),
            f"other requests of one source above {bucket.rate}",
            origin,
        ),
        Rule("rate.notes", (), Goto(names.NOTES), "within its limits", origin),
    ]


def _notes(context: Context) -> list[Rule]:
    """Remember who asked, so that the switch's answer can be taken as a judgement of it."""
    accept = Rule(
        "rate.accept", (), Done(), "unknown source within its limits", context.origin("limits")
    )
    if not context.learning:
        return [accept]
    origin = context.origin("learning")
    kept = {"register": names.SET_PENDING, "invite": names.SET_RINGING}
    return [
        *(
            Rule(
                f"rate.pending-{method}",
                (PayloadAt(L4Proto.UDP, start),),
                UpdateSet(kept[method]),
                f"{method.upper()} whose answer will be judged",
                origin,
            )
            for method, start in _REQUESTS.items()
        ),
        Rule(
            "rate.login",
            (PayloadContains(CREDENTIALS),),
            Goto(names.STRANGER_LOGIN),
            "a login of an unknown source",
            origin,
        ),
        Rule(
            "rate.unchallenged",
            (StartsWithOneOf(UNCHALLENGED),),
            Done(),
            "carries no login, and is never challenged",
            origin,
        ),
        bare_rule(context, "rate"),
        accept,
    ]


def _stranger_login(context: Context) -> Chain:
    """Hold a guesser where the ban set is full or bans are written more slowly than he guesses."""
    origin = context.origin("learning", "failures")
    barred = Rule(
        "rate.barred",
        (InSet(names.SET_BARRED),),
        Drop(),
        "too many wrong passwords from this source",
        origin,
    )
    rate, burst = _LOGINS
    bucket = RateAbove("ulogin", rate, burst, context.source)
    above = Rule(
        "rate.logins",
        (replace(bucket, table_size=context.buckets(bucket.lifetime)),),
        Drop(),
        f"logins of one unknown source above {rate}",
        origin,
    )
    return Chain(
        names.STRANGER_LOGIN,
        Layer.RATE,
        "logins of unknown sources",
        (
            *([barred] if context.bans else []),
            above,
            Rule("rate.to-login", (), Goto(names.LOGIN), "a login to be judged", origin),
        ),
        Priority.RAW,
    )


def _recent(context: Context) -> Chain:
    recent = context.policy.limits.recent
    if recent is None:
        raise AssertionError("the caller checks limits.recent")
    origin = context.origin("limits", "recent")
    requests = pluralize(recent.hits, "request")
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
                        context.source,
                    ),
                ),
                Drop(),
                f"more than {requests} of one source in {format_duration(recent.seconds)}",
                origin,
            ),
            Rule(
                "recent.record",
                (),
                Record(names.LIST_RECENT, context.source),
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
