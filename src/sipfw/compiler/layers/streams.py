"""Stream layer: what strangers say over TCP, TLS and WebSocket, behind connection tracking.

Nothing here can be spoofed: a packet of state ESTABLISHED fits a connection that stood. A verdict
is a reset, because a segment that is met with silence is repeated, and nothing behind it arrives.
Where the switch is behind this host the place is mangle/PREROUTING, which knows no reset: there
OPTIONS and stray answers pass and count by their volume, and a tool's text bans.

What is let through is `Done`, never a `Return`: nftables enters a search by a jump, and would come
back behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.connections import completed_rule, opened_to, own_rules
from sipfw.compiler.layers.known import CREDENTIALS, trusted_sets
from sipfw.compiler.layers.signatures import anywhere, at_start
from sipfw.compiler.layers.stream_notes import CHALLENGEABLE, note_chains
from sipfw.compiler.layers.stream_writing import ask, chain, ended, rule
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    ConntrackState,
    CtState,
    HasPayload,
    InSet,
    L4Proto,
    PayloadAt,
    PayloadContains,
    Protocol,
    StartsWithOneOf,
    VolumeAbove,
)
from sipfw.ruleset.rule import (
    AddOnce,
    DeleteFromSet,
    Done,
    Goto,
    Reset,
    Rule,
    UpdateSet,
)

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.model import Chain

_ENCRYPTED = (Transport.TLS, Transport.WS, Transport.WSS)

# Callers and asked sources: what a busy trunk says in a minute, in terms of one source's volume.
_HEARD = 8

_PEERS = {
    names.STREAM: (
        names.SET_TRUSTED_TIERS,
        names.SET_TRUSTED,
        names.SET_TRUSTED_TCP,
        names.SET_TRUSTED_PORTS,
    ),
    names.STREAM_ENCRYPTED: (
        names.SET_TRUSTED_TIERS,
        names.SET_TRUSTED,
        names.SET_TRUSTED_TLS,
        names.SET_TRUSTED_TLS_PORTS,
    ),
}


def stream_rules(context: Context) -> list[Rule]:
    """Return the rules that lead segments of connections that stand to their judgement.

    They belong into the input chain, unless `signalling.behind` gives them a chain of their own.
    """
    if context.denied:
        return []
    established = ConntrackState((CtState.ESTABLISHED,))
    ways = [
        ("stream.tcp", context.signalling_ports(Transport.TCP), names.STREAM),
        ("stream.encrypted", context.signalling_ports(*_ENCRYPTED), names.STREAM_ENCRYPTED),
    ]
    rules = [
        rule(
            context,
            rule_id,
            opened_to(context, ports, established),
            Goto(chain),
            "on a connection that stands",
        )
        for rule_id, ports, chain in ways
        if ports
    ]
    if context.learning:
        outward = (Protocol(L4Proto.TCP), InSet(names.SET_OUTWARD))
        rules.append(
            rule(
                context,
                "stream.outward",
                outward,
                Goto(names.STREAM),
                "on a connection that the switch has opened",
            )
        )
    return rules


def stream_chains(context: Context) -> list[Chain]:
    """Return the chains behind those rules; none where there are none."""
    if not stream_rules(context):
        return []
    chains = [_stream(context), *_data_chains(context)]
    if context.signalling_ports(*_ENCRYPTED):
        chains.append(_encrypted(context))
    return chains


def _peers(context: Context, place: str) -> list[Rule]:
    prefix = place.removeprefix("SIP_").lower().replace("_", "-")
    needed = trusted_sets(context)
    return [
        rule(context, f"{prefix}.{name}", (InSet(name, hot=True),), Done(), "trusted peer")
        for name in _PEERS[place]
        if name in needed
    ]


def _stream(context: Context) -> Chain:
    known = []
    if context.learning and context.bans:
        known += [
            ask(
                context, "stream.banned", names.SET_BANNED_TCP, names.STREAM_BANNED, "banned source"
            ),
            _shut(context, "stream.shut"),
        ]
    if context.learning:
        known.append(
            ask(
                context,
                "stream.registered",
                names.SET_REGISTERED,
                names.STREAM_REGISTERED,
                "a phone has logged in on this connection",
            )
        )
        if _heard(context):
            known += [
                ask(context, f"stream.{name}", name, names.STREAM_HEARD, f"{name} source")
                for name in (names.SET_LEARNED, names.SET_CALLERS, names.SET_ASKED)
            ]
    return chain(
        context,
        names.STREAM,
        "strangers' connections: how much, and what they say",
        *own_rules(context, "stream", Done()),
        *_peers(context, names.STREAM),
        *completed_rule(context, "stream"),
        *known,
        *_volume(context, "stream"),
        *_to_data(context, "stream"),
    )


def _shut(context: Context, rule_id: str) -> Rule:
    return rule(
        context, rule_id, (InSet(names.SET_SHUT),), ended(context), "too many refused logins here"
    )


def _to_data(context: Context, prefix: str) -> list[Rule]:
    return [
        rule(
            context,
            f"{prefix}.data",
            (HasPayload(),),
            Goto(names.STREAM_DATA),
            "says something",
        ),
        rule(context, f"{prefix}.silent", (), Done(), "says nothing"),
    ]


def _heard(context: Context) -> bool:
    stream = context.policy.limits.stream
    return stream is not None and stream.per_source is not None


def _volume(context: Context, prefix: str) -> list[Rule]:
    stream = context.policy.limits.stream
    if stream is None:
        return []
    wanted = [
        ("connection", stream.per_connection, names.SET_STREAMS),
        ("source", stream.per_source, names.SET_STREAM_SOURCES),
    ]
    return [
        rule
        for what, size, name in wanted
        if size is not None
        for rule in _counted(context, f"{prefix}.{what}", name, size, f"one {what}")
    ]


def _counted(context: Context, rule_id: str, name: str, size: int, what: str) -> list[Rule]:
    return [
        rule(context, f"{rule_id}-count", (), AddOnce(name), f"bytes of {what}"),
        rule(
            context,
            rule_id,
            (VolumeAbove(name, size),),
            ended(context),
            f"more than {size:,} bytes of {what} in a minute",
        ),
    ]


def _data_chains(context: Context) -> list[Chain]:
    chains = [_data(context), _texts(context), _tool(context)]
    if not context.learning:
        return chains
    if _heard(context):
        chains.append(_heard_chain(context))
    if context.bans:
        chains.append(_banned(context))
    return [*chains, _registered(context), *note_chains(context)]


def _heard_chain(context: Context) -> Chain:
    stream = context.policy.limits.stream
    size = 0 if stream is None or stream.per_source is None else _HEARD * stream.per_source
    return chain(
        context,
        names.STREAM_HEARD,
        "learned sources, callers and who was asked: a generous volume",
        *_counted(context, "stream-heard.source", names.SET_STREAM_HEARD, size, "one caller"),
        *_to_data(context, "stream-heard"),
    )


def _banned(context: Context) -> Chain:
    return chain(
        context,
        names.STREAM_BANNED,
        "banned over TCP, on a connection of the switch or from before the ban",
        ask(
            context,
            "stream-banned.registered",
            names.SET_REGISTERED,
            names.STREAM_REGISTERED,
            "a phone has logged in on this connection",
        ),
        rule(context, "stream-banned.end", (), ended(context), "banned source"),
    )


def _registered(context: Context) -> Chain:
    return chain(
        context,
        names.STREAM_REGISTERED,
        "connections on which a phone has logged in: only its logins are looked at",
        rule(
            context,
            "stream-registered.login",
            (PayloadContains(CREDENTIALS),),
            Goto(names.STREAM_TEXTS),
            "a login",
        ),
        rule(
            context,
            "stream-registered.bare",
            (StartsWithOneOf(CHALLENGEABLE, L4Proto.TCP),),
            UpdateSet(names.SET_BARE),
            "request without credentials",
        ),
        rule(context, "stream-registered.pass", (), Done(), "registered phone"),
    )


def _data(context: Context) -> Chain:
    rules: list[Rule] = []
    if context.learning:
        rules += [
            ask(context, f"stream-data.{name}", name, names.STREAM_TEXTS, f"{name} source")
            for name in (names.SET_LEARNED, names.SET_CALLERS)
        ]
    if not context.policy.signalling.behind:
        rules += _first_words(context)
    return chain(
        context,
        names.STREAM_DATA,
        "what strangers say: no OPTIONS, no answers that nobody asked for",
        *rules,
        *at_start(context, L4Proto.TCP, ended(context), "stream.line"),
        rule(context, "stream-data.texts", (), Goto(names.STREAM_TEXTS), "nothing so far"),
    )


def _first_words(context: Context) -> list[Rule]:
    rules = []
    if context.policy.scanners.block_options:
        rules.append(
            Rule(
                "scanner.options-tcp",
                (PayloadAt(L4Proto.TCP, b"OPTI"),),
                Reset(),
                "OPTIONS from an unknown source over TCP",
                context.origin("scanners", "block_options"),
            )
        )
    if context.learning:
        answer = PayloadAt(L4Proto.TCP, b"SIP/")
        rules += [
            rule(
                context,
                "stream-data.asked",
                (answer, InSet(names.SET_ASKED)),
                Goto(names.STREAM_TEXTS),
                "answer to what the switch has asked",
            ),
            rule(context, "stream-data.answer", (answer,), Reset(), "answer that nobody asked for"),
        ]
    return rules


def _texts(context: Context) -> Chain:
    after = Goto(names.STREAM_NOTES) if context.learning else Done()
    return chain(
        context,
        names.STREAM_TEXTS,
        "texts of attack tools in a segment",
        *anywhere(context, "stream.ua", Goto(names.STREAM_TOOL)),
        rule(context, "stream-texts.none", (), after, "no attack tool"),
    )


def _tool(context: Context) -> Chain:
    """Nobody forges a connection that stands, so here a tool ends what was learned."""
    forget = [
        rule(
            context,
            f"stream-tool.{name}",
            (),
            DeleteFromSet(name),
            f"leaves {name}",
        )
        for name in (names.SET_REGISTERED, names.SET_LEARNED)
        if context.learning
    ]
    if context.bans and context.policy.signalling.behind:
        forget.append(
            rule(context, "stream-tool.ban", (), UpdateSet(names.SET_BANNED_TCP), "banned")
        )
    return chain(
        context,
        names.STREAM_TOOL,
        "an attack tool: forgotten, and ended",
        *forget,
        rule(context, "stream-tool.end", (), ended(context), "attack tool"),
    )


def _encrypted(context: Context) -> Chain:
    shut = [_shut(context, "stream-encrypted.shut")] if context.learning and context.bans else []
    return chain(
        context,
        names.STREAM_ENCRYPTED,
        "strangers' connections over TLS and WebSocket: how much",
        *own_rules(context, "stream-encrypted", Done()),
        *_peers(context, names.STREAM_ENCRYPTED),
        *completed_rule(context, "stream-encrypted"),
        *shut,
        *_volume(context, "stream-encrypted"),
        rule(context, "stream-encrypted.pass", (), Done(), "within its limits"),
    )
