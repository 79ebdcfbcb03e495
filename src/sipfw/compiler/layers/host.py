"""Host layer: with admin networks, drops what is neither SIP nor otherwise admitted.

It opens nothing: what it lets through leaves our chains, and the host's other rules and policy
still judge it (docs/decisions/0016).
"""

from __future__ import annotations

from ipaddress import IPv6Network

from sipfw.compiler import names
from sipfw.compiler.context import Context, join_ports
from sipfw.compiler.layers.connections import connection_chains, connection_rules
from sipfw.compiler.layers.lost import host_notes, host_rules
from sipfw.compiler.layers.media import media_admitted, media_chains, media_guard
from sipfw.compiler.layers.streams import stream_chains, stream_rules
from sipfw.ruleset.match import (
    IP_PROTOCOLS,
    Address,
    ConntrackState,
    CtState,
    Icmp,
    InSet,
    Interface,
    IpProtocol,
    L4Proto,
    PortRange,
    Ports,
    Protocol,
)
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import Done, Drop, Family, Goto, Rule

# Echo, unreachable (path MTU), time exceeded, parameter problem.
_ICMP = (8, 3, 11, 12)
# RFC 4890, 4.4.1: errors, echo, neighbour and router discovery, multicast listener discovery.
_ICMP6 = (1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 143)


def host_guarded(context: Context) -> bool:
    """Tell whether the rest of the host is guarded: admin networks are the condition."""
    return bool(context.policy.admin.networks) and context.policy.host.default_drop


def stream_judgement(context: Context) -> list[Chain]:
    """Return what judges connections and what is said on them, with its own way in where needed."""
    chains = [*connection_chains(context), *stream_chains(context)]
    rules = [*connection_rules(context), *stream_rules(context)]
    if not rules or not context.policy.signalling.behind:
        return chains
    entry = Chain(
        names.CONNECT,
        Layer.RATE,
        "connections, before DNAT leads them on",
        tuple(rules),
        Priority.MANGLE,
        Base(Hook.PREROUTING, Priority.MANGLE),
    )
    return [entry, *chains]


def host_chains(context: Context) -> list[Chain]:
    """Return the input chain, and the host guard where the policy has admin networks."""
    rules = [
        Rule(
            f"host.sip-{match.proto}",
            (match,),
            Done(),
            "SIP that the layers before have let through",
            context.origin("signalling"),
        )
        for match in context.signalling()
    ]
    guard = media_guard(context)
    if not rules and not guard and not host_guarded(context):
        return []
    if not context.policy.signalling.behind:
        # In front of the rule where TCP leaves; UDP has left before.
        place = next((n for n, rule in enumerate(rules) if rule.id == "host.sip-tcp"), len(rules))
        rules[place:place] = [*connection_rules(context), *stream_rules(context)]
    rules[:0] = guard
    chains = media_chains(context)
    if host_guarded(context):
        rules[:0] = media_admitted(context)
        rules.append(
            Rule(
                "host.guard",
                (),
                Goto(names.HOST),
                "everything else to this host",
                context.origin("admin", "networks"),
            )
        )
        chains += [_host(context), *host_notes(context)]
    else:
        rules.append(_tracking(context))
    entry = Chain(
        names.INPUT,
        Layer.HOST,
        "delivery to this host",
        tuple(rules),
        Priority.FILTER,
        Base(Hook.INPUT, Priority.FILTER),
    )
    return [entry, *chains]


def _tracking(context: Context) -> Rule:
    """Keep defragmentation on where no other rule names connection tracking.

    Any rule that does makes the kernel put packets together at priority -400 (nf_ct_netns_get
    enables nf_defrag_ipv4/6); without it the payload tests in raw would see single fragments and
    miss a text in the second one.
    """
    return Rule(
        "host.tracking",
        (Protocol(L4Proto.TCP), ConntrackState((CtState.UNTRACKED,))),
        Done(),
        "keeps connection tracking and defragmentation on",
        context.origin("signalling"),
    )


def _host(context: Context) -> Chain:
    rules = [
        Rule(
            "host.established",
            (ConntrackState((CtState.ESTABLISHED, CtState.RELATED)),),
            Done(),
            "answers to what this host asked",
            context.origin("host"),
        ),
        Rule("host.loopback", (Interface("lo"),), Done(), "loopback", context.origin("host")),
        *_icmp(context),
        *_admin(context),
        *_open(context),
        *host_rules(context),
        Rule(
            "host.drop",
            (),
            Drop(),
            "everything that no rule admits",
            context.origin("host", "default_drop"),
        ),
    ]
    return Chain(
        names.HOST,
        Layer.HOST,
        "the rest of the host: admin networks, media, ICMP; then nothing",
        tuple(rules),
        Priority.FILTER,
    )


def _icmp(context: Context) -> list[Rule]:
    origin = context.origin("host")
    return [
        Rule(f"host.icmp-{number}", (Icmp(number),), Done(), "ICMP", origin, Family.IP)
        for number in _ICMP
    ] + [
        Rule(f"host.icmp6-{number}", (Icmp(number),), Done(), "ICMPv6", origin, Family.IP6)
        for number in _ICMP6
    ]


def _admin(context: Context) -> list[Rule]:
    admin = context.policy.admin
    ssh = PortRange(admin.ssh_port, admin.ssh_port)
    places = [("ssh", (ssh,)), ("web", admin.web_ports)]
    return [
        Rule(
            f"host.{name}",
            (
                Ports(L4Proto.TCP, join_ports(ports)),
                InSet(names.SET_ADMIN),
            ),
            Done(),
            f"{name} from the admin networks",
            context.origin("admin", "networks"),
        )
        for name, ports in places
        if ports
    ]


def _open(context: Context) -> list[Rule]:
    host = context.policy.host
    rules = [
        Rule(
            f"host.open-{proto}",
            (Ports(proto, join_ports(ranges)),),
            Done(),
            f"{proto.upper()} ports open to everybody",
            context.origin("host", f"{proto}_ports"),
        )
        for proto, ranges in ((L4Proto.TCP, host.tcp_ports), (L4Proto.UDP, host.udp_ports))
        if ranges
    ]
    rules += [
        Rule(
            f"host.interface-{index}",
            (Interface(name),),
            Done(),
            f"inner network on {name}",
            context.origin("host", "interfaces"),
        )
        for index, name in enumerate(host.interfaces)
    ]
    rules += [
        Rule(
            f"host.protocol-{name}",
            (IpProtocol(IP_PROTOCOLS[name]),),
            Done(),
            f"{name.upper()}, an IP protocol open to everybody",
            context.origin("host", "protocols"),
        )
        for name in host.protocols
    ]
    # A DHCPv6 answer comes from a link-local address to the client's port and is not a reply to
    # the multicast that asked (RFC 8415, 7.2), so it is never ESTABLISHED.
    rules.append(
        Rule(
            "host.dhcp6",
            (
                Ports(L4Proto.UDP, (PortRange(546, 546),)),
                Address(IPv6Network("fe80::/10")),
            ),
            Done(),
            "DHCPv6 answers",
            context.origin("host"),
            Family.IP6,
        )
    )
    return rules
