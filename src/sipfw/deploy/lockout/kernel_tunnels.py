"""Which packets carry what comes through a tunnel of the kernel; the kinds are rtnetlink's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.lockout.carried import Carrier
from sipfw.host.network import address_or_none
from sipfw.ruleset.addresses import IpProto

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from sipfw.host.network import Link, NetworkFacts, Template, WireguardPeer
    from sipfw.host.sockets import Socket
    from sipfw.ruleset.addresses import IpAddress

# IANA, assigned Internet protocol numbers.
PROTOCOLS = {
    4: "IPIP",
    41: "IPv6 in IPv4 or IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    108: "IPComp",
    115: "L2TP",
}
_IPSEC = {"esp": 50, "ah": 51, "comp": 108}
_GRE = frozenset({"gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan"})
_IP = frozenset({"ipip", "sit", "ip6tnl"})
# Kind -> the key of its port, and the port where iproute2 does not print one.
_UDP = {
    "vxlan": ("port", 8472),
    "geneve": ("port", 6081),
    "bareudp": ("dstport", 6635),
    "gtp": ("port", 2152),
    "amt": ("relay_port", 2268),
}
WIREGUARD = frozenset({"wireguard", "amneziawg"})
L2TP = frozenset({"l2tpeth", "l2tp"})

# nf_conntrack_proto_udp.c: a flow that was never answered is forgotten after 30 s.
_FORGOTTEN = 30


def ways_of_kernel(
    link: Link, client: IpAddress, facts: NetworkFacts, far: Sequence[IpAddress]
) -> tuple[Carrier, ...] | None:
    """Return what carries it; None where the link is no tunnel of these kinds.

    `far` are the other ends that the link's forwarding table names, where it has one.
    """
    ends = list(far) or _remotes(link.data)
    own = address_or_none(link.data.get("local") or link.data.get("local6"))
    if link.kind in _UDP:
        key, usual = _UDP[link.kind]
        port = link.data.get(key, usual)
        # The sender's port tells flows apart, so none of its packets is an answer to one of ours.
        return _each(ends, own, IpProto.UDP, port if isinstance(port, int) else usual, flows=True)
    if link.kind in _GRE | _IP:
        if link.data.get("encap"):
            ports = facts.fou_ports()
            return tuple(
                way for port in ports for way in _each(ends, own, IpProto.UDP, port, flows=True)
            )
        number = 47 if link.kind in _GRE else _inner(client)
        return _each(ends or _six_to_four(link, client), own, IpProto.OTHER, number=number)
    if link.kind in L2TP:
        return tuple(
            Carrier(IpProto.UDP, port, far=far)
            if port
            else Carrier(IpProto.OTHER, number=115, far=far)
            for port, far in facts.l2tp_tunnels()
        )
    return None


def ways_of_wireguard(
    link: str, client: IpAddress, facts: NetworkFacts, unowned: Iterable[Socket]
) -> tuple[Carrier, ...]:
    """Return the ways of a WireGuard interface; without its tool, all ports that may be its own."""
    told = facts.wireguard(link)
    if told is None:
        return tuple(
            Carrier(IpProto.UDP, port)
            for port in sorted({item.port for item in unowned if item.port})
        )
    port, mark, peers = told
    peer = _peer(peers, client)
    return (
        Carrier(
            IpProto.UDP,
            port,
            far=peer.endpoint if peer else None,
            mark=mark,
            kept_open=peer is not None
            and peer.endpoint is not None
            and 0 < peer.keepalive < _FORGOTTEN,
        ),
    )


def ways_of_ipsec(
    templates: Sequence[Template], client: IpAddress, facts: NetworkFacts
) -> tuple[Carrier, ...]:
    """Return what carries packets that IPsec asks for."""
    if not templates:
        return ()
    chosen = min(templates, key=lambda item: item.protocol == "comp")
    far = chosen.far or client
    if ports := facts.over_udp(far):
        return tuple(Carrier(IpProto.UDP, port, far=far) for port in ports)
    return (Carrier(IpProto.OTHER, number=_IPSEC.get(chosen.protocol, 50), far=far),)


def _each(
    ends: Iterable[IpAddress],
    own: IpAddress | None,
    protocol: IpProto,
    port: int = 0,
    *,
    number: int = 0,
    flows: bool = False,
) -> tuple[Carrier, ...]:
    known: list[IpAddress | None] = [*ends]
    return tuple(
        Carrier(protocol, port, number, far, own, mirrored=not flows) for far in known or [None]
    )


def _remotes(data: Mapping[str, Any]) -> list[IpAddress]:
    found = [address_or_none(data.get(key)) for key in ("remote", "remote6")]
    return [item for item in found if item is not None]


def _inner(client: IpAddress) -> int:
    return 4 if client.version == 4 else 41


def _six_to_four(link: Link, client: IpAddress) -> list[IpAddress]:
    """Return the IPv4 address that 6to4 has in its addresses (RFC 3056)."""
    embedded = client.sixtofour if client.version == 6 and link.kind == "sit" else None
    return [] if embedded is None else [embedded]


def _peer(peers: Iterable[WireguardPeer], client: IpAddress) -> WireguardPeer | None:
    fitting = [
        (network.prefixlen, number, peer)
        for number, peer in enumerate(peers)
        for network in peer.allowed
        if client in network
    ]
    return max(fitting)[2] if fitting else None
