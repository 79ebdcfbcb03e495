"""Entry layer: finds SIP among all packets, before connection tracking."""

from __future__ import annotations

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.compiler.layers.feeds import feed_rules
from sipfw.compiler.layers.known import trusted_sets
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
            Goto(names.SWITCH) if context.learning else Done(),
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
    if context.bans:
        rules.append(
            Rule(
                "encrypted.banned",
                (InSet(names.SET_BANNED),),
                # As in SIP_BANNED: a TCP source cannot be spoofed, so nobody is framed here.
                Drop(),
                "banned source over TLS or WebSocket",
                context.origin("bans"),
            )
        )
    if context.learning:
        rules.append(
            Rule(
                "encrypted.learned",
                (InSet(names.SET_LEARNED),),
                Goto(names.LEARNED),
                "the switch accepted a request from here before",
                context.origin("learning"),
            )
        )
    return Chain(
        names.ENCRYPTED,
        Layer.ENTRY,
        "TLS and WebSocket: no text to search, only who and how often",
        (*rules, *_encrypted_unknown(context)),
        Priority.RAW,
    )


def _encrypted_unknown(context: Context) -> list[Rule]:
    if context.denied:
        return [
            Rule(
                "encrypted.denied",
                (),
                Drop(),
                "unknown sources are denied",
                context.origin("limits", "unknown_sources"),
            )
        ]
    return [
        *feed_rules(context, ".tls"),
        Rule(
            "encrypted.connect",
            (TcpSyn(),),
            Goto(names.RATE_LIMIT),
            "unknown source opens a connection: limit it",
            context.origin("limits"),
        ),
        Rule(
            "encrypted.accept",
            (),
            Done(),
            "unknown source on a connection it has opened",
            context.origin("limits"),
        ),
    ]
