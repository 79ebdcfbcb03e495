"""The address sets: what the policy says, and what the packet path will learn."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.compiler.collapsed import collapsed
from sipfw.compiler.layers.evidence_sets import evidence_sets
from sipfw.compiler.layers.feeds import feed_sets
from sipfw.compiler.layers.host import host_guarded
from sipfw.compiler.layers.known import trusted_sets
from sipfw.compiler.layers.lost import lost_sets
from sipfw.compiler.layers.media import media_guarded, media_sets
from sipfw.policy.model import Peer, Transport
from sipfw.policy.types import Hostname
from sipfw.ruleset.match import L4Proto, ports_in
from sipfw.ruleset.model import AddressSet, Endpoint, SetKind

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.policy.types import Network

_ENCRYPTED = {Transport.TLS, Transport.WS, Transport.WSS}

_TRUSTED_SETS = {
    names.SET_TRUSTED_TIERS: (SetKind.NETWORK, "trusted peers with a tier"),
    names.SET_TRUSTED: (SetKind.NETWORK, "trusted peers"),
    names.SET_TRUSTED_UDP: (SetKind.NETWORK, "peers trusted over UDP only"),
    names.SET_TRUSTED_TCP: (SetKind.NETWORK, "peers trusted over TCP only"),
    names.SET_TRUSTED_TLS: (SetKind.NETWORK, "peers trusted over TLS or WebSocket only"),
    names.SET_TRUSTED_PORTS: (SetKind.PEER_ENDPOINT, "peers trusted from given source ports"),
    names.SET_TRUSTED_TLS_PORTS: (
        SetKind.PEER_ENDPOINT,
        "peers trusted over TLS from given source ports",
    ),
}


def all_sets(context: Context) -> list[AddressSet]:
    """Return every set that this policy's rules name."""
    return [
        *_trusted(context),
        *_tiers(context),
        *feed_sets(context),
        *_host(context),
        *evidence_sets(context),
        *media_sets(context),
        *lost_sets(context, guarded=host_guarded(context)),
    ]


def _trusted(context: Context) -> list[AddressSet]:
    networks: dict[str, list[Network]] = defaultdict(list)
    endpoints: dict[str, list[Endpoint]] = defaultdict(list)
    for peer in context.policy.trusted_peers:
        addresses = context.addresses(peer)
        if peer.source_ports:
            for name, items in _endpoints(peer, addresses).items():
                endpoints[name] += items
        else:
            for name in _network_sets(context, peer):
                networks[name] += addresses
    resolved = {
        name
        for peer in _named(context)
        for name in (_endpoints(peer, []) if peer.source_ports else _network_sets(context, peer))
    }
    origin = context.origin("trusted_peers")
    needed = trusted_sets(context)
    return [
        AddressSet(
            name,
            kind,
            summary,
            origin,
            networks=collapsed(networks[name]),
            endpoints=_collapsed_endpoints(endpoints[name]),
            resolved=name in resolved,
        )
        for name, (kind, summary) in _TRUSTED_SETS.items()
        if name in needed
    ]


def _collapsed_endpoints(endpoints: list[Endpoint]) -> tuple[Endpoint, ...]:
    """Drop those inside another one: nft refuses intervals that overlap."""
    places: dict[tuple[L4Proto, int], list[Network]] = defaultdict(list)
    for endpoint in endpoints:
        places[endpoint.proto, endpoint.port].append(endpoint.network)
    found = {
        Endpoint(network, proto, port)
        for (proto, port), networks in places.items()
        for network in collapsed(networks)
    }
    return tuple(sorted(found, key=str))


def _network_sets(context: Context, peer: Peer) -> list[str]:
    transports = set(peer.transports)
    if not transports:
        capped = peer.tier is not None and context.policy.tiers.enforce
        return [names.SET_TRUSTED_TIERS if capped else names.SET_TRUSTED]
    found = []
    if Transport.UDP in transports:
        found.append(names.SET_TRUSTED_UDP)
    if Transport.TCP in transports:
        found.append(names.SET_TRUSTED_TCP)
    if transports & _ENCRYPTED:
        found.append(names.SET_TRUSTED_TLS)
    return found


def _endpoints(peer: Peer, addresses: list[Network]) -> dict[str, list[Endpoint]]:
    transports = set(peer.transports) or set(Transport)
    protos = [
        p
        for t, p in ((Transport.UDP, L4Proto.UDP), (Transport.TCP, L4Proto.TCP))
        if t in transports
    ]
    plain = [
        Endpoint(network, proto, port)
        for network in addresses
        for port in ports_in(peer.source_ports)
        for proto in protos
    ]
    encrypted = [
        Endpoint(network, L4Proto.TCP, port)
        for network in addresses
        for port in ports_in(peer.source_ports)
        if transports & _ENCRYPTED
    ]
    return {names.SET_TRUSTED_PORTS: plain, names.SET_TRUSTED_TLS_PORTS: encrypted}


def _named(context: Context) -> list[Peer]:
    """Return the peers with a host name: their addresses change without a new policy."""
    return [
        peer
        for peer in context.policy.trusted_peers
        if any(isinstance(entry, Hostname) for entry in peer.signalling)
    ]


def _tiers(context: Context) -> list[AddressSet]:
    if not context.policy.tiers.enforce:
        return []
    members: dict[str, list[Network]] = defaultdict(list)
    for peer in context.policy.trusted_peers:
        if peer.tier is not None:
            members[peer.tier.value] += context.addresses(peer)
    named = {peer.tier.value for peer in _named(context) if peer.tier is not None}
    return [
        AddressSet(
            f"{names.TIER_SET_PREFIX}{tier}",
            SetKind.NETWORK,
            f"peers of tier {tier}",
            context.origin("tiers", tier),
            networks=collapsed(networks),
            resolved=tier in named,
        )
        for tier, networks in sorted(members.items())
    ]


def _host(context: Context) -> list[AddressSet]:
    policy = context.policy
    found = []
    if policy.admin.networks and policy.host.default_drop:
        found.append(
            AddressSet(
                names.SET_ADMIN,
                SetKind.NETWORK,
                "admin networks",
                context.origin("admin", "networks"),
                networks=collapsed(context.admin_networks()),
                resolved=any(isinstance(entry, Hostname) for entry in policy.admin.networks),
            )
        )
    if media_guarded(context):
        media = [network for peer in policy.trusted_peers for network in peer.media]
        signalling = [n for peer in policy.trusted_peers for n in context.addresses(peer)]
        found.append(
            AddressSet(
                names.SET_MEDIA,
                SetKind.NETWORK,
                "networks that may send RTP",
                context.origin("media", "sources"),
                networks=collapsed([*media, *signalling]),
                resolved=bool(_named(context)),
            )
        )
    return found
