"""Entry layer: finds SIP among all packets, before connection tracking."""

from __future__ import annotations

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.compiler.layers.feeds import feed_rules
from sipfw.compiler.layers.known import trusted_sets
from sipfw.compiler.layers.media import media_noted
from sipfw.compiler.layers.signatures import moved_rule
from sipfw.policy.model import Transport
from sipfw.ruleset.match import InSet, Interface, L4Proto, Ports, TcpSyn
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, NoTrack, Rule

_READABLE = ((Transport.UDP, L4Proto.UDP), (Transport.TCP, L4Proto.TCP))


def entry_chains(context: Context) -> list[Chain]:
    """Return the prerouting chain, and the one for ports where nothing can be read."""
    chains = [_prerouting(context)]
    if _encrypted_ports(context).ranges:
        chains.append(_encrypted(context))
    if not context.denied:
        chains += _streams(context)
    return chains


def _encrypted_ports(context: Context) -> Ports:
    ports = context.signalling_ports(Transport.TLS, Transport.WS, Transport.WSS)
    return Ports(L4Proto.TCP, ports)


def _prerouting(context: Context) -> Chain:
    rules = [
        Rule(
            "entry.loopback",
            (Interface("lo"),),
            Done(),
            "the switch's own parts talking over loopback",
            context.origin("signalling"),
        )
    ]
    rules += [
        Rule(
            f"entry.behind-{number}",
            (Interface(name),),
            Goto(names.SWITCH) if context.learning or media_noted(context) else Done(),
            f"what the switch behind {name} sends",
            context.origin("signalling", "behind"),
        )
        for number, name in enumerate(context.policy.signalling.behind, start=1)
    ]
    if context.policy.media.notrack and context.policy.media.ports:
        rules.append(
            Rule(
                "entry.media",
                (Ports(L4Proto.UDP, join_ports(context.policy.media.ports)),),
                NoTrack(),
                "RTP kept out of connection tracking",
                context.origin("media", "notrack"),
            )
        )
    rules += [
        Rule(
            f"entry.{transport}",
            (Ports(proto, ports),),
            Goto(names.TRUSTED),
            f"SIP over {transport.upper()}",
            context.origin("signalling", transport.value),
        )
        for transport, proto in _READABLE
        if (ports := context.signalling_ports(transport))
    ]
    encrypted = _encrypted_ports(context)
    if encrypted.ranges:
        rules.append(
            Rule(
                "entry.encrypted",
                (encrypted,),
                Goto(names.ENCRYPTED),
                "SIP over TLS and WebSocket",
                context.origin("signalling", "tls"),
            )
        )
    return Chain(
        names.PREROUTING,
        Layer.ENTRY,
        "what is SIP, before connection tracking sees it",
        tuple(rules),
        Priority.RAW,
        Base(Hook.PREROUTING, Priority.RAW),
    )


def _encrypted(context: Context) -> Chain:
    """TLS and WebSocket: nothing to read, so only who connects and how often."""
    needed = trusted_sets(context)
    immune = (
        names.SET_TRUSTED,
        names.SET_TRUSTED_TIERS,
        names.SET_TRUSTED_TLS,
        names.SET_TRUSTED_TLS_PORTS,
    )
    rules = [
        Rule(
            f"encrypted.{name}",
            (InSet(name, hot=True),),
            Done(),
            "trusted peer, delivered untouched",
            context.origin("trusted_peers"),
        )
        for name in immune
        if name in needed
    ]
    end = Rule(
        "encrypted.others",
        (),
        Goto(names.STREAMS),
        "strangers over TLS and WebSocket",
        context.origin("limits"),
    )
    if context.denied:
        denied = context.origin("limits", "unknown_sources")
        end = Rule("encrypted.denied", (), Drop(), "unknown sources are denied", denied)
    return Chain(
        names.ENCRYPTED,
        Layer.ENTRY,
        "TLS and WebSocket: no text to search, only who and how much",
        (*rules, end),
        Priority.RAW,
    )


def _streams(context: Context) -> list[Chain]:
    """TCP of strangers before connection tracking: only what cannot be meant for a victim.

    A ban over TCP rests on a connection that stood, and the cap is for all: no SYN, which anybody
    can forge, counts against one source. All else is judged behind connection tracking.
    """
    rules = [moved_rule(context, "streams")]
    if context.bans:
        rules.append(
            Rule(
                "streams.banned",
                (InSet(names.SET_BANNED_TCP),),
                Goto(names.STREAMS_BANNED),
                "source is banned over TCP",
                context.origin("bans"),
            )
        )
    if context.learning:
        rules.append(
            Rule(
                "streams.learned",
                (InSet(names.SET_LEARNED),),
                Done(),
                "somebody has logged in from here",
                context.origin("learning"),
            )
        )
    summary = "left to connection tracking; what it says is judged behind it"
    accept = Rule("streams.accept", (), Done(), summary, context.origin("limits"))
    streams = Chain(
        names.STREAMS,
        Layer.ENTRY,
        "TCP of strangers: who may connect",
        (*rules, *feed_rules(context, ".tcp"), *_opening(context), accept),
        Priority.RAW,
    )
    return [streams, *_streams_banned(context)]


def _opening(context: Context) -> list[Rule]:
    origin = context.origin("limits", "aggregate")
    if context.policy.limits.aggregate is None:
        return []
    summary = "an unknown source opens a connection"
    return [Rule("streams.opening", (TcpSyn(),), Goto(names.OPENING), summary, origin)]


def _streams_banned(context: Context) -> list[Chain]:
    if not context.bans:
        return []
    origin = context.origin("bans")
    proved = Rule(
        "streams.registered",
        (InSet(names.SET_REGISTERED),),
        Done(),
        "a phone has logged in on this connection",
        context.origin("learning"),
    )
    drop = Rule("streams.drop", (), Drop(), "banned source over TCP", origin)
    return [
        Chain(
            names.STREAMS_BANNED,
            Layer.BANNED,
            "sources banned over TCP: connections on which a phone has logged in go on",
            (*([proved] if context.learning else []), drop),
            Priority.RAW,
        )
    ]
