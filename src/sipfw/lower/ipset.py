"""Address sets to ipsets, one per family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower.naming import set_name
from sipfw.lower.xtables import Family, XSet
from sipfw.ruleset.match import SeenAtLeast
from sipfw.ruleset.model import AddressSet, Ruleset, SetKind

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_TYPES = {
    SetKind.NETWORK: "hash:net",
    SetKind.PEER_ENDPOINT: "hash:net,port",
    SetKind.HOST: "hash:ip",
    SetKind.ENDPOINT: "hash:ip,port",
    SetKind.TARGET: "hash:ip,port",
}

_BITS = {Family.IP: 32, Family.IP6: 128}

# ipset's own default, room for a policy to grow without a new header.
_SMALLEST = 65536
_FEWEST_BUCKETS = 1024


def lower_sets(ruleset: Ruleset) -> tuple[XSet, ...]:
    """Return the ipsets of a ruleset, in its order."""
    sets = [*ruleset.sets, *windows(ruleset)]
    return tuple(_lower(item, family) for item in sets for family in (Family.IP, Family.IP6))


def windows(ruleset: Ruleset) -> list[AddressSet]:
    """Return a counted set for each list that rules ask; xt_recent forgets all but 100 sources."""
    found = {
        match.list: AddressSet(
            match.list,
            SetKind.HOST,
            rule.summary,
            rule.origin,
            timeout=match.seconds,
            size=match.table_size,
            counted=True,
            prefix=match.prefix,
        )
        for chain in ruleset.chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, SeenAtLeast)
    }
    return list(found.values())


def _lower(item: AddressSet, family: Family) -> XSet:
    elements = _elements(item, family)
    size = item.size if item.dynamic else max(_SMALLEST, 2 * len(elements))
    options = ["family", "inet" if family is Family.IP else "inet6"]
    expected = size // 4 if item.dynamic else 2 * len(elements)
    options += ["hashsize", str(_hashsize(expected)), "maxelem", str(size)]
    bits = item.prefix.ip if family is Family.IP else item.prefix.ip6
    if item.kind is SetKind.HOST and bits != _BITS[family]:
        options += ["netmask", str(bits)]
    if item.timeout is not None:
        options += ["timeout", str(item.timeout)]
    if item.counted:
        options.append("counters")
    return XSet(
        set_name(item.name, family),
        _TYPES[item.kind],
        tuple(options),
        elements,
        static=not item.dynamic,
        of=item.name,
    )


def _hashsize(expected: int) -> int:
    """Return the power of two that keeps buckets short.

    The kernel doubles the table only when a bucket is full with 12 (AHASH_MAX_SIZE in
    ip_set_hash_gen.h), and every lookup of a stranger walks a bucket (docs/performance.md).
    """
    return max(_FEWEST_BUCKETS, 1 << max(0, expected - 1).bit_length())


def _elements(item: AddressSet, family: Family) -> tuple[str, ...]:
    version = 4 if family is Family.IP else 6
    networks = [
        part
        for network in item.networks
        if network.version == version
        for part in _members(network)
    ]
    endpoints = [
        f"{part},{endpoint.proto}:{endpoint.port}"
        for endpoint in item.endpoints
        if endpoint.network.version == version
        for part in _members(endpoint.network)
    ]
    return (*networks, *endpoints)


def _members(network: IPv4Network | IPv6Network) -> list[str]:
    """Write a network as ipset lists it.

    One address stands bare; /0, which hash:net does not take (ipset(8): prefix 1 to 32), becomes
    its two halves.
    """
    if network.prefixlen == network.max_prefixlen:
        return [str(network.network_address)]
    parts = [network] if network.prefixlen else network.subnets()
    return [str(part) for part in parts]
