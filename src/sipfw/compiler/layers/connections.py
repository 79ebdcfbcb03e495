"""Connection layer: how many TCP connections an unknown source may hold, counted at their SYN.

Behind connection tracking, which raw is not. In raw a source port that is used again meets its
closed connection, and nf_conncount then adds nothing: xt_connlimit finds 0 connections and drops
the packet uncounted, `ct count` lets it through uncounted (docs/decisions/0014). Later there is a
new connection, or else the packet is not NEW.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.known import ONE_SOURCE, trusted_sets
from sipfw.compiler.layers.rates import NEIGHBOURS
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    ConnectionsAbove,
    ConntrackState,
    CtState,
    InSet,
    Interface,
    L4Proto,
    Match,
    OpenedTo,
    Ports,
    Protocol,
    TcpSyn,
)
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import Drop, Jump, Return, Rule
from sipfw.words import counted

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import PortRange

_PLAIN = (Transport.TCP,)
_ENCRYPTED = (Transport.TLS, Transport.WS, Transport.WSS)

# Which peers the layers in raw let pass, and at which ports; None are those of all transports.
_IMMUNE: tuple[tuple[str, tuple[Transport, ...] | None], ...] = (
    (names.SET_TRUSTED_TIERS, None),
    (names.SET_TRUSTED, None),
    (names.SET_TRUSTED_TCP, _PLAIN),
    (names.SET_TRUSTED_PORTS, _PLAIN),
    (names.SET_TRUSTED_TLS, _ENCRYPTED),
    (names.SET_TRUSTED_TLS_PORTS, _ENCRYPTED),
)


def connection_rules(context: Context) -> list[Rule]:
    """Return the rule that leads the first packet of a connection to its limits.

    It belongs into the input chain, unless `signalling.behind` gives it a chain of its own.
    """
    if not _limited(context):
        return []
    return [
        Rule(
            "connect.tcp",
            _to(context, match.ranges, TcpSyn(), ConntrackState((CtState.NEW,))),
            Jump(names.CONNECTIONS),
            "a connection is opened",
            context.origin("limits", "connlimit"),
        )
        for match in context.signalling()
        if match.proto is L4Proto.TCP
    ]


def _to(context: Context, ranges: tuple[PortRange, ...], *others: Match) -> tuple[Match, ...]:
    """Ask for the port that the sender wrote: in INPUT, REDIRECT may have changed it already.

    It comes last: nft 1.0.6 lists `ct original proto-dst` without its protocol where a match of
    TCP's header follows, and cannot read that again.
    """
    if context.policy.signalling.behind:
        return (Ports(L4Proto.TCP, ranges), *others)
    return (Protocol(L4Proto.TCP), *others, OpenedTo(ranges))


def connection_chains(context: Context) -> list[Chain]:
    """Return the chains of the limits; none where there is nothing to limit."""
    rules = connection_rules(context)
    if not rules:
        return []
    if not context.policy.signalling.behind:
        return [_connections(context, Priority.FILTER)]
    # A switch behind this host is not reached through INPUT, and in FORWARD the port is its own,
    # behind the jumps that Docker puts in front whenever it starts. A table in mangle costs every
    # packet some 90 ns, so only these hosts have one.
    entry = Chain(
        names.CONNECT,
        Layer.RATE,
        "connections, before DNAT leads them on",
        tuple(rules),
        Priority.MANGLE,
        Base(Hook.PREROUTING, Priority.MANGLE),
    )
    return [entry, _connections(context, Priority.MANGLE)]


def _connections(context: Context, priority: Priority) -> Chain:
    limits = context.policy.limits.connlimit
    drops = [
        Rule(
            f"connlimit.{field.replace('_', '-')}",
            (ConnectionsAbove(count, prefix),),
            Drop(),
            f"more than {counted(count, 'connection')} {field.replace('_', ' ')}",
            context.origin("limits", "connlimit", field),
        )
        for field, prefix in (("per_source", ONE_SOURCE), ("per_subnet", NEIGHBOURS))
        if (count := getattr(limits, field)) is not None
    ]
    return Chain(
        names.CONNECTIONS,
        Layer.RATE,
        "unknown sources: connections that they hold",
        (*_immune(context), *drops),
        priority,
    )


def _limited(context: Context) -> bool:
    limits = context.policy.limits.connlimit
    if limits is None or context.denied:
        return False
    return limits.per_source is not None or limits.per_subnet is not None


def _immune(context: Context) -> list[Rule]:
    """Leave out whom the layers in raw have let pass without a limit."""
    return [*_own(context), *_peers(context), *_learned(context)]


def _own(context: Context) -> list[Rule]:
    places = [("loopback", "lo", context.origin("signalling"))]
    places += [
        (f"behind-{number}", name, context.origin("signalling", "behind"))
        for number, name in enumerate(context.policy.signalling.behind, start=1)
    ]
    return [
        Rule(f"connections.{what}", (Interface(name),), Return(), f"comes from {name}", origin)
        for what, name, origin in places
    ]


def _peers(context: Context) -> list[Rule]:
    needed = trusted_sets(context)
    rules = []
    for name, transports in _IMMUNE:
        ports = context.signalling_ports(*(transports or ()))
        asked = InSet(name, hot=True)
        if name in needed and (ports or transports is None):
            rules.append(
                Rule(
                    f"connections.{name}",
                    _to(context, ports, asked) if ports else (asked,),
                    Return(),
                    "trusted peer",
                    context.origin("trusted_peers"),
                )
            )
    return rules


def _learned(context: Context) -> list[Rule]:
    if not context.learning:
        return []
    return [
        Rule(
            "connections.learned",
            (InSet(names.SET_LEARNED),),
            Return(),
            "the switch accepted a request from here before",
            context.origin("learning"),
        )
    ]
