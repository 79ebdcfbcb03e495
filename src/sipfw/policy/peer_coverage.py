"""How much of the Internet is trusted: by one network, and by all peers together."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from sipfw.policy.finding import Finding
from sipfw.policy.types import Hostname, Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.policy.model import Policy

# A network wider than this holds a noticeable part of the Internet.
_WIDEST_PEER = {4: 8, 6: 16}

# One 256th of a family is all that peers may cover together: a /8, and of IPv6, where some ten /12
# are in use, a /16.
_MOST_COVERED = {4: 1 << 24, 6: 1 << 112}

# First and last address of networks that are on no Internet (RFC 1918, RFC 6598, RFC 4193), as
# integers: subnet_of costs more than all the rest of the checks for 100,000 peers.
_PRIVATE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv6Network("fc00::/7"),
)
_INSIDE = {
    version: [
        (int(item.network_address), int(item.broadcast_address))
        for item in _PRIVATE
        if item.version == version
    ]
    for version in (4, 6)
}


def peer_coverage(policy: Policy) -> Iterator[Finding]:
    """Add up what single networks of decent size trust together, in the order of the policy."""
    covered = {4: 0, 6: 0}
    said: set[int] = set()
    for index, peer in enumerate(policy.trusted_peers):
        for place, network in enumerate(peer.signalling):
            if isinstance(network, Hostname) or peer.allow_any:
                continue
            # A network that is too wide by itself is a fault of its own.
            if too_wide(network) or _inside(network):
                continue
            version = network.version
            covered[version] += network.num_addresses
            if covered[version] > _MOST_COVERED[version] and version not in said:
                said.add(version)
                message = (
                    f"with '{network}' the peers cover more than 1/256 of IPv{version} together; "
                    "name the peers' own networks, or set allow_any: true"
                )
                yield Finding(("trusted_peers", index, "signalling", place), message)


def _inside(network: Network) -> bool:
    """Tell whether a network is on no Internet, so that its width harms nobody."""
    start = int(network.network_address)
    return any(first <= start <= last for first, last in _INSIDE[network.version])


def too_wide(network: Network) -> bool:
    """Tell whether one network is a noticeable part of the Internet."""
    return network.prefixlen < _WIDEST_PEER[network.version]
