"""Networks that are banned or trusted by hand: each is the sources that it is made of.

The sets hold single sources, whose elements have a time each; so a network is put in source by
source, and one that has too many of them belongs into a block list or into the policy.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, TypeAlias

from sipfw.compiler.manual import MOST_GUESTS
from sipfw.manual.addresses import parse_address
from sipfw.policy.quantities import shown
from sipfw.policy.types import parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.manual.change import InForce
    from sipfw.ruleset.addresses import IpAddress, IpNetwork

# A /20 of IPv4, or a /52 of sources that are a /64: some 100 ms of work, and a page of elements.
MOST_SOURCES = 4096

Named: TypeAlias = "IpAddress | IpNetwork"


def parse_named(text: str) -> Named:
    """Read an address or a network. Raises ValueError that says what to write.

    How many sources a network has is for the firewall in force to say.
    """
    try:
        network = parse_network(text)
    except ValueError:
        return parse_address(text)
    return network.network_address if network.num_addresses == 1 else network


def parse_guests(text: str) -> list[IpAddress]:
    """Read an address, or a network as its addresses. Raises ValueError."""
    found = parse_named(text)
    network = ip_network(found)
    if network.num_addresses > MOST_GUESTS:
        raise ValueError(
            f"{shown(text)} has more than {MOST_GUESTS:,} addresses, too many to trust for a time; "
            "put it into trusted_peers (sipfw peer add)"
        )
    return list(network)


def sources_in(now: InForce, named: Named) -> Iterator[IpAddress]:
    """Return the sources of an address or a network, as sets and books keep them."""
    network = ip_network(named)
    length = now.source(network.network_address).prefixlen
    if network.prefixlen >= length:
        yield now.key(network.network_address)
    else:
        yield from (each.network_address for each in network.subnets(new_prefix=length))


def too_wide(now: InForce, asked: Iterable[Named]) -> Iterator[str]:
    """Refuse a network that is a part of one source, or has too many of them."""
    for named in asked:
        network = ip_network(named)
        source = now.source(network.network_address)
        count = 1 << max(source.prefixlen - network.prefixlen, 0)
        if network.num_addresses > 1 and network.prefixlen > source.prefixlen:
            yield (
                f"{network} is not one source: here that is a /{source.prefixlen} "
                "(limits.ipv6_prefix); name the whole of it, or an address in it"
            )
        elif count > MOST_SOURCES:
            yield (
                f"{network} is not one source: here that is a /{source.prefixlen}, and more than "
                f"{MOST_SOURCES:,} at once belong into a block list (feeds in the policy)"
            )
