"""What one element of a dynamic set is about: a source, or an endpoint of one address."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.ruleset.match import ONE_ADDRESS, L4Proto, PrefixLengths

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpAddress, IpNetwork
    from sipfw.ruleset.model import Ruleset


@dataclass(frozen=True, slots=True, order=True)
class Door:
    """Transport and port: the further parts of a key that names them."""

    proto: L4Proto
    port: int


def source_of(address: IpAddress, prefix: PrefixLengths) -> IpNetwork:
    """Return the network that counts as one source with this address."""
    bits = prefix.ip if address.version == 4 else prefix.ip6
    return ip_network((address, bits), strict=False)


def key_address(address: IpAddress, prefix: PrefixLengths) -> IpAddress:
    """Return the address under which a set keeps a source."""
    bits = prefix.ip if address.version == 4 else prefix.ip6
    return address if bits == address.max_prefixlen else source_of(address, prefix).network_address


def source_text(address: IpAddress, prefix: PrefixLengths) -> str:
    """Write a source for people: one address bare, a network with its length."""
    found = source_of(address, prefix)
    return str(address) if found.num_addresses == 1 else str(found)


def prefix_in(ruleset: Ruleset, name: str) -> PrefixLengths:
    """Return how much of an address is one source in the set of that name."""
    found = (item.prefix for item in ruleset.sets if item.name == name)
    return next(found, ONE_ADDRESS)
