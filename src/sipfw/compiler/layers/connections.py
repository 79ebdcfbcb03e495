"""Connection layer: how many TCP connections one unknown source holds; needs connection tracking.

It sits in mangle, right after connection tracking and before any DNAT, so that a switch in a
container is covered too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.layers.entry import trusted_sets
from sipfw.compiler.layers.known import ONE_SOURCE
from sipfw.compiler.layers.rates import NEIGHBOURS
from sipfw.policy.model import Transport
from sipfw.ruleset.match import (
    ConnectionsAbove,
    ConntrackState,
    CtState,
    InSet,
    Interface,
    L4Proto,
    Ports,
    TcpSyn,
)
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Goto, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context


def connection_chains(context: Context) -> list[Chain]:
    """Return the chain after connection tracking, and the limits where the policy has some."""
    limits = context.policy.limits.connlimit
    ports = context.signalling_ports(Transport.TCP, Transport.TLS, Transport.WS, Transport.WSS)
    rules = [
        Rule(
            "connections.loopback",
            (Interface("lo"),),
            Done(),
            "the switch's own parts talking over loopback",
            context.origin("signalling"),
        ),
        # Naming a conntrack state also keeps defragmentation on (nf_ct_netns_get enables
        # nf_defrag_ipv4/6 at priority -400): without it the payload tests in raw would see
        # single fragments and miss a text in the second one.
        Rule(
            "connections.untracked",
            (ConntrackState((CtState.UNTRACKED,)),),
            Done(),
            "packets outside connection tracking",
            context.origin("limits", "connlimit"),
        ),
    ]
    chains = []
    if limits is not None and ports and not context.denied:
        rules.append(
            Rule(
                "connections.new",
                (Ports(L4Proto.TCP, ports), TcpSyn()),
                Goto(names.CONNLIMIT),
                "a new TCP connection to the switch",
                context.origin("limits", "connlimit"),
            )
        )
        chains.append(_connlimit(context))
    entry = Chain(
        names.CONNECTIONS,
        Layer.CONNECTIONS,
        "TCP connections, after connection tracking",
        tuple(rules),
        Priority.MANGLE,
        Base(Hook.PREROUTING, Priority.MANGLE),
    )
    return [entry, *chains]


def _connlimit(context: Context) -> Chain:
    limits = context.policy.limits.connlimit
    if limits is None:
        raise AssertionError("the caller checks limits.connlimit")
    immune = [name for name in sorted(trusted_sets(context)) if name != names.SET_TRUSTED_UDP]
    if context.learning:
        immune.append(names.SET_LEARNED)
    rules = [
        Rule(
            f"connlimit.{name}",
            (InSet(name),),
            Done(),
            "trusted or learned source, not counted",
            context.origin("trusted_peers"),
        )
        for name in immune
    ]
    for field, prefix in (("per_source", ONE_SOURCE), ("per_subnet", NEIGHBOURS)):
        count = getattr(limits, field)
        if count is not None:
            rules.append(
                Rule(
                    f"connlimit.{field.replace('_', '-')}",
                    (ConnectionsAbove(count, prefix),),
                    Drop(),
                    f"more than {count} connections {field.replace('_', ' ')}",
                    context.origin("limits", "connlimit", field),
                )
            )
    rules.append(
        Rule(
            "connlimit.accept",
            (),
            Done(),
            "unknown source within its connections",
            context.origin("limits", "connlimit"),
        )
    )
    return Chain(
        names.CONNLIMIT,
        Layer.CONNECTIONS,
        "TCP connections that one unknown source may hold",
        tuple(rules),
        Priority.MANGLE,
    )
