"""Connection layer: how many TCP connections an unknown source may hold, counted at their SYN.

Behind connection tracking, which raw is not. In raw a source port that is used again meets its
closed connection, and nf_conncount then adds nothing: xt_connlimit finds 0 connections and drops
the packet uncounted, `ct count` lets it through uncounted (docs/decisions/0014). Later there is a
new connection, or else the packet is not NEW.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.known import trusted_sets
from sipfw.compiler.layers.rates import NEIGHBOURS
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    ConnectionsAbove,
    ConntrackState,
    CountAbove,
    CtState,
    Direction,
    InSet,
    Interface,
    L4Proto,
    Match,
    OpenedTo,
    Ports,
    Protocol,
    TcpSyn,
)
from sipfw.ruleset.model import Chain, Layer, Priority
from sipfw.ruleset.rule import AddOnce, Drop, Jump, Return, Rule, UpdateSet
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.ruleset.match import PortRange, PrefixLengths
    from sipfw.ruleset.rule import Action

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
            opened_to(context, match.ranges, TcpSyn(), ConntrackState((CtState.NEW,))),
            Jump(names.CONNECTIONS),
            "a connection is opened",
            context.origin("limits", "connlimit"),
        )
        for match in context.signalling()
        if match.proto is L4Proto.TCP
    ]


def opened_to(context: Context, ranges: tuple[PortRange, ...], *others: Match) -> tuple[Match, ...]:
    """Ask for the port that the sender wrote: in INPUT, REDIRECT may have changed it already.

    It comes last: nft 1.0.6 lists `ct original proto-dst` without its protocol where a match of
    TCP's header follows, and cannot read that again.
    """
    if context.policy.signalling.behind:
        return (Ports(L4Proto.TCP, ranges), *others)
    return (Protocol(L4Proto.TCP), *others, OpenedTo(ranges))


def connection_chains(context: Context) -> list[Chain]:
    """Return the chains of the limits; none where there is nothing to limit."""
    return [_connections(context), _completed(context)] if connection_rules(context) else []


def priority(context: Context) -> Priority:
    """Return where streams are judged.

    A switch behind this host is not reached through INPUT, and in FORWARD the port is its own,
    behind the jumps that Docker puts in front whenever it starts. A table in mangle costs every
    packet some 90 ns, so only these hosts have one.
    """
    return Priority.MANGLE if context.policy.signalling.behind else Priority.FILTER


def _connections(context: Context) -> Chain:
    drops = [
        Rule(
            f"connlimit.{place.field.replace('_', '-')}",
            # Counted first, also while nobody is crowded: the kernel counts whom it has seen open.
            (ConnectionsAbove(place.count, place.prefix), InSet(place.crowded)),
            Drop(),
            f"more than {pluralize(place.count, 'connection')} {place.field.replace('_', ' ')}",
            context.origin("limits", "connlimit", place.field),
        )
        for place in _places(context)
    ]
    return Chain(
        names.CONNECTIONS,
        Layer.RATE,
        "unknown sources: connections that they hold",
        (*_immune(context), *drops),
        priority(context),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """One of the two limits, and the sets that tell who has had so many connections stand."""

    field: str
    count: int
    prefix: PrefixLengths
    completed: str
    crowded: str


def _places(context: Context) -> list[_Place]:
    limits = context.policy.limits.connlimit
    wanted = [
        ("per_source", context.source, names.SET_COMPLETED, names.SET_CROWDED),
        ("per_subnet", NEIGHBOURS, names.SET_COMPLETED_NEAR, names.SET_CROWDED_NEAR),
    ]
    return [
        _Place(field, count, prefix, completed, crowded)
        for field, prefix, completed, crowded in wanted
        if (count := getattr(limits, field)) is not None
    ]


def completed_rule(context: Context, prefix: str) -> list[Rule]:
    """Return the rule that notes a connection once it stands, where a limit counts them."""
    if not connection_rules(context):
        return []
    origin = context.origin("limits", "connlimit")
    jump = Jump(names.COMPLETED)
    return [Rule(f"{prefix}.completed", (), jump, "a connection that stands", origin)]


def _completed(context: Context) -> Chain:
    """Count connections that stood, at their first packet.

    The kernel's own count holds half-open ones too, and anybody can forge a SYN: 10 of them would
    keep a customer out, 30 his subnet. So its count decides only where as many have really stood.
    """
    origin = context.origin("limits", "connlimit")
    rules = [
        Rule(
            "completed.before",
            (InSet(names.SET_OPENED),),
            Return(),
            "counted when it was new",
            origin,
        ),
        Rule(
            "completed.opened", (), UpdateSet(names.SET_OPENED), "a new one, which stands", origin
        ),
    ]
    for place in _places(context):
        kind = place.field.replace("_", "-")
        rules += [
            Rule(
                f"completed.{kind}",
                (),
                AddOnce(place.completed),
                "connections that stood",
                origin,
            ),
            Rule(
                f"completed.{kind}-full",
                (CountAbove(place.completed, place.count - 1, Direction.SOURCE),),
                UpdateSet(place.crowded),
                f"as many as may be held have stood, {place.field.replace('_', ' ')}",
                origin,
            ),
        ]
    return Chain(
        names.COMPLETED,
        Layer.RATE,
        "connections of strangers that stand",
        tuple(rules),
        priority(context),
    )


def _limited(context: Context) -> bool:
    limits = context.policy.limits.connlimit
    if limits is None or context.denied:
        return False
    return limits.per_source is not None or limits.per_subnet is not None


def _immune(context: Context) -> list[Rule]:
    """Leave out whom the layers in raw have let pass without a limit."""
    return [*own_rules(context, "connections"), *_peers(context), *_learned(context)]


def own_rules(context: Context, prefix: str, action: Action | None = None) -> list[Rule]:
    """Return the rules that leave out this host, and the switch behind it."""
    places = [("loopback", "lo", context.origin("signalling"))]
    places += [
        (f"behind-{number}", name, context.origin("signalling", "behind"))
        for number, name in enumerate(context.policy.signalling.behind, start=1)
    ]
    return [
        Rule(
            f"{prefix}.{what}", (Interface(name),), action or Return(), f"comes from {name}", origin
        )
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
                    opened_to(context, ports, asked) if ports else (asked,),
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
