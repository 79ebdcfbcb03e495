"""The sets that the packet path fills: about sources, and about endpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.rates import NEIGHBOURS
from sipfw.policy.model import Transport
from sipfw.ruleset.match import ONE_ADDRESS, L4Proto
from sipfw.ruleset.model import AddressSet, SetKind

if TYPE_CHECKING:
    from sipfw.compiler.context import Context

# How long the switch's own request may be answered: an INVITE rings for three minutes (RFC 3261,
# 13.3.1.1) and each 1xx lets it ring on.
_ASKED = 300
# A phone answers a challenge at once, and repeats a request after half a second.
_CHALLENGED = 5
_TRIED = 2
# As many as can be learned, and as many as can have been within weeks.
_ALL = 65536
_FORMER = 131_072
# A port of the switch is in a rush until strangers have kept to their cap for so long.
_RUSH = 5
# One for each address and port of the switch.
_OWN_PORTS = 1024
# A phone repeats itself after one second, and after two more.
_SEEN = 4
_SEEN_TWICE = 131_072
_SEEN_THRICE = 65_536
# Streams are measured by the minute.
_MINUTE = 60
# What connections a source has completed tells for as long as one usually stays open.
_HOUR = 3600


def evidence_sets(context: Context) -> list[AddressSet]:
    """Return every set that this policy's rules may fill."""
    found = []
    if context.learning:
        found += [*_learned(context), *_awaited(context)]
    if context.bans:
        found += _bans(context)
    if not context.denied:
        found += [*_crowd(context), *_streams(context)]
    return found


def _learned(context: Context) -> list[AddressSet]:
    ttl, weeks = context.policy.learning.registered_ttl, context.policy.learning.remembered_ttl
    former = "sources that have logged in within weeks"
    return [
        _sources(context, names.SET_FORMER, former, weeks, size=_FORMER),
        _sources(context, names.SET_CALLERS, "sources whose call the switch has answered", ttl),
        _sources(context, names.SET_LEARNED, "sources that have logged in", ttl),
        _endpoints_of(context, names.SET_REGISTERED, "phones that have logged in", ttl),
        _sources(context, names.SET_ASKED, "sources that the switch has asked", _ASKED),
        _sources(
            context, names.SET_ASKED_REGISTER, "sources at which the switch registers", _ASKED
        ),
    ]


def _awaited(context: Context) -> list[AddressSet]:
    """Return what awaits an answer: as large as what the cap lets in, or nobody could be judged."""
    learning = context.policy.learning
    short, long = learning.pending, learning.ringing
    wanted = [
        (names.SET_PENDING, "phones whose REGISTER awaits an answer", short, 1),
        (names.SET_LOGINS, "phones whose login awaits an answer", short, 1),
        (names.SET_BARE, "phones whose request without credentials awaits an answer", short, 1),
        (names.SET_RINGING, "phones whose INVITE awaits an answer", long, 1),
        # It takes an INVITE that is challenged, and another one.
        (names.SET_DIALLING, "phones whose INVITE with credentials awaits an answer", long, 2),
        (names.SET_CHALLENGED, "phones that were just challenged", _CHALLENGED, 1),
    ]
    return [
        _endpoints_of(context, name, summary, timeout, size=context.entries(timeout, share))
        for name, summary, timeout, share in wanted
    ]


def _bans(context: Context) -> list[AddressSet]:
    bans = context.policy.bans
    found = _faults(context) if context.learning else []
    if context.probation:
        tried = "banned sources' ports that have just tried"
        size = context.entries(_TRIED)
        found.append(_endpoints_of(context, names.SET_TRIED, tried, _TRIED, size=size))
    origin = context.origin("bans", "duration")
    return found + [
        replace(_sources(context, name, summary, bans.duration, size=bans.size), origin=origin)
        for name, summary in (
            (names.SET_BANNED, "banned sources"),
            (names.SET_BANNED_TCP, "banned sources over TCP"),
        )
    ]


def _faults(context: Context) -> list[AddressSet]:
    """Return what counts against somebody, each for the window: as large as the cap lets come."""
    window = context.policy.learning.window
    every, shut = context.entries(window), context.entries(window, context.policy.learning.failures)
    wanted = [
        (_sources, names.SET_FAILURES, "sources with refused logins", every, True),
        (_sources, names.SET_LEARNED_FAILURES, "learned sources with refused logins", _ALL, True),
        (_endpoints_of, names.SET_WRONG, "phones with refused logins", every, True),
        (_endpoints_of, names.SET_CHALLENGES, "phones by challenges", every, True),
        (_endpoints_of, names.SET_NO_REGISTER, "phones with too many challenges", shut, False),
        (_endpoints_of, names.SET_UNANSWERED, "phones whose challenges are open", every, True),
        (_endpoints_of, names.SET_REFUSED_CALLS, "phones with refused calls", every, True),
        (_endpoints_of, names.SET_SHUT, "phones with too many refused logins", shut, False),
        (_sources, names.SET_BARRED, "sources with too many refused logins", shut, False),
    ]
    return [
        make(context, name, summary, window, size=size, counted=counting)
        for make, name, summary, size, counting in wanted
    ]


def _crowd(context: Context) -> list[AddressSet]:
    wanted = [
        (names.SET_RUSH, "ports of the switch that strangers rush", _RUSH, _OWN_PORTS),
        (names.SET_TWICE, "newcomers seen twice in a rush", _SEEN, _SEEN_TWICE),
        (names.SET_THRICE, "newcomers seen three times in a rush", _SEEN, _SEEN_THRICE),
    ]
    origin = context.origin("limits", "aggregate")
    return [
        replace(_endpoints_of(context, name, summary, timeout, size=size), origin=origin)
        for name, summary, timeout, size in wanted
    ]


def _streams(context: Context) -> list[AddressSet]:
    found = []
    stream = context.policy.limits.stream
    if stream is not None and stream.per_connection is not None:
        found.append(_stream(context, names.SET_STREAMS, "connections of strangers", ported=True))
    if stream is not None and stream.per_source is not None:
        found.append(_stream(context, names.SET_STREAM_SOURCES, "strangers with connections"))
        if context.learning:
            found.append(
                _stream(context, names.SET_STREAM_HEARD, "callers and asked sources on streams")
            )
    if context.learning:
        outward = "ends of connections that the switch has opened for SIP"
        found.append(_endpoints_of(context, names.SET_OUTWARD, outward, _HOUR))
    return [*found, *_masked(context), *_completed(context)]


def _masked(context: Context) -> list[AddressSet]:
    if not (context.learning and context.bans and context.signalling_ports(Transport.WS)):
        return []
    summary = "WebSocket connections with refusals"
    window = context.policy.learning.window
    return [_endpoints_of(context, names.SET_MASKED, summary, window, counted=True)]


def _completed(context: Context) -> list[AddressSet]:
    limits = context.policy.limits.connlimit
    if limits is None or not any(match.proto is L4Proto.TCP for match in context.signalling()):
        return []
    wanted = [
        (limits.per_source, names.SET_COMPLETED, names.SET_CROWDED, context.source),
        (limits.per_subnet, names.SET_COMPLETED_NEAR, names.SET_CROWDED_NEAR, NEIGHBOURS),
    ]
    found = []
    for limit, counting, crowded, prefix in wanted:
        if limit is None:
            continue
        whose = "subnets" if prefix is NEIGHBOURS else "sources"
        found += [
            replace(
                _sources(
                    context, counting, f"{whose} by connections that stood", _HOUR, counted=True
                ),
                prefix=prefix,
            ),
            replace(
                _sources(context, crowded, f"{whose} with as many as they may hold", _HOUR),
                prefix=prefix,
            ),
        ]
    if found:
        opened = "connections that stand"
        found.append(_endpoints_of(context, names.SET_OPENED, opened, _HOUR))
    return found


def _stream(context: Context, name: str, summary: str, *, ported: bool = False) -> AddressSet:
    make = _endpoints_of if ported else _sources
    # Whose volume is not counted is not limited, so there is room for all who may connect.
    made = make(context, name, summary, _MINUTE, size=context.entries(_MINUTE), counted=True)
    return replace(made, origin=context.origin("limits", "stream"))


def _sources(
    context: Context,
    name: str,
    summary: str,
    timeout: int,
    *,
    size: int = _ALL,
    counted: bool = False,
) -> AddressSet:
    return AddressSet(
        name,
        SetKind.HOST,
        summary,
        context.origin("learning"),
        timeout=timeout,
        size=size,
        counted=counted,
        prefix=context.source,
    )


def _endpoints_of(
    context: Context,
    name: str,
    summary: str,
    timeout: int,
    *,
    size: int = _ALL,
    counted: bool = False,
) -> AddressSet:
    made = _sources(context, name, summary, timeout, size=size, counted=counted)
    return replace(made, kind=SetKind.ENDPOINT, prefix=ONE_ADDRESS)
