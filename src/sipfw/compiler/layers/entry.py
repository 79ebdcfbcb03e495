"""Entry layer: finds SIP among all packets before connection tracking and identifies its source."""

from __future__ import annotations

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.policy.model import Transport
from sipfw.ruleset.match import InSet, Interface, L4Proto, Match, Ports, Protocol, TcpSyn
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import Action, Done, Drop, Goto, Jump, NoTrack, Rule


def entry_chains(context: Context) -> list[Chain]:
    """Return the prerouting chain and the chains that sort sources into layers."""
    chains = [_prerouting(context), _signalling(context)]
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
    for transport, proto in ((Transport.UDP, L4Proto.UDP), (Transport.TCP, L4Proto.TCP)):
        ports = context.signalling_ports(transport)
        if ports:
            rules.append(
                Rule(
                    f"entry.{transport}",
                    (Ports(proto, ports),),
                    Goto(names.SIGNALLING),
                    f"SIP over {transport.upper()}",
                    context.origin("signalling", transport.value),
                )
            )
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


def _trusted_lookups(
    context: Context, places: tuple[tuple[str, tuple[Match, ...]], ...]
) -> list[Rule]:
    """Ask the peers' sets; the plain one first because it holds nearly all of them."""
    return [
        Rule(
            f"identity.{name}",
            (*matches, InSet(name)),
            Goto(names.TRUSTED),
            "source is a trusted peer",
            context.origin("trusted_peers"),
        )
        for name, matches in places
    ]


def _known_sources(context: Context, prefix: str, learned: Action) -> list[Rule]:
    rules = []
    if context.learning:
        rules.append(
            Rule(
                f"{prefix}.learned",
                (InSet(names.SET_LEARNED),),
                learned,
                "the switch accepted a request from here before",
                context.origin("learning"),
            )
        )
    if context.bans:
        rules.append(
            Rule(
                f"{prefix}.banned",
                (InSet(names.SET_BANNED),),
                Goto(names.BANNED),
                "source is banned",
                context.origin("bans"),
            )
        )
    return rules


def _signalling(context: Context) -> Chain:
    sets = trusted_sets(context)
    places: list[tuple[str, tuple[Match, ...]]] = [(names.SET_TRUSTED, ())]
    for name, proto in (
        (names.SET_TRUSTED_UDP, L4Proto.UDP),
        (names.SET_TRUSTED_TCP, L4Proto.TCP),
    ):
        if name in sets:
            places.append((name, (Protocol(proto),)))
    if names.SET_TRUSTED_PORTS in sets:
        places.append((names.SET_TRUSTED_PORTS, ()))
    rules = _trusted_lookups(context, tuple(places))
    rules += _known_sources(context, "identity", Goto(names.LEARNED))
    rules += _unknown(context)
    return Chain(
        names.SIGNALLING,
        Layer.ENTRY,
        "who sends: trusted, learned, banned or unknown",
        tuple(rules),
        Priority.RAW,
    )


def _unknown(context: Context) -> list[Rule]:
    if context.denied:
        return [_denied(context, "unknown.denied")]
    origin = context.origin("limits", "unknown_sources")
    return [
        Rule(
            "unknown.scanners",
            (),
            Jump(names.SCANNER_BLOCK),
            "unknown source: look for scanners",
            context.origin("scanners"),
        ),
        Rule(
            "unknown.limits",
            (),
            Goto(names.RATE_LIMIT),
            "unknown source, no scanner: limit it",
            origin,
        ),
    ]


def _denied(context: Context, rule_id: str) -> Rule:
    return Rule(
        rule_id,
        (),
        Drop(),
        "unknown sources are denied",
        context.origin("limits", "unknown_sources"),
    )


def _encrypted(context: Context) -> Chain:
    """TLS and WebSocket: nothing to read, so only who connects and how often."""
    sets = trusted_sets(context)
    places: list[tuple[str, tuple[Match, ...]]] = [(names.SET_TRUSTED, ())]
    places += [
        (name, ()) for name in (names.SET_TRUSTED_TLS, names.SET_TRUSTED_TLS_PORTS) if name in sets
    ]
    rules = [
        Rule(
            f"encrypted.{name}",
            (*matches, InSet(name)),
            Goto(names.TRUSTED),
            "source is a trusted peer",
            context.origin("trusted_peers"),
        )
        for name, matches in places
    ]
    rules += _known_sources(context, "encrypted", Goto(names.LEARNED))
    if context.denied:
        rules.append(_denied(context, "encrypted.denied"))
    else:
        rules += [
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
    return Chain(
        names.ENCRYPTED,
        Layer.ENTRY,
        "TLS and WebSocket: no text to search, only who and how often",
        tuple(rules),
        Priority.RAW,
    )


def trusted_sets(context: Context) -> set[str]:
    """Name the peers' sets that this policy needs; see `sets.trusted`."""
    needed = {names.SET_TRUSTED}
    for peer in context.policy.trusted_peers:
        transports = set(peer.transports)
        encrypted = {Transport.TLS, Transport.WS, Transport.WSS}
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
    return needed
