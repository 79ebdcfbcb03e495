"""Which addresses may be banned or trusted by hand."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_network
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.deploy.lists.exempt import exempt_by_policy
from sipfw.deploy.lockout.guard import far_ends
from sipfw.deploy.names.resolve import may_be_a_peer
from sipfw.host.own_addresses import own_addresses
from sipfw.host.sessions import SSH_PORT, ssh_sessions
from sipfw.policy.quantities import shown
from sipfw.policy.types import parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sipfw.policy.model import Policy
    from sipfw.policy.types import Network
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.model import AddressSet, Ruleset

_TRUSTED = "trusted"


def parse_address(text: str) -> IpAddress:
    """Read one address. Raises ValueError that says what to write."""
    try:
        network = parse_network(text)
    except ValueError as error:
        raise ValueError(str(error).removesuffix(" or a CIDR")) from error
    if network.num_addresses != 1:
        raise ValueError(
            f"{shown(text)} is a network; name single addresses, or put the network into a block "
            "list (feeds in the policy)"
        )
    return network.network_address


def parse_source(text: str) -> IpAddress | IPv6Network:
    """Read an address, or a prefix of IPv6 as `sipfw bans` writes it.

    Whether the prefix is one source is for the firewall in force to say. Raises ValueError.
    """
    try:
        network = parse_network(text)
    except ValueError:
        return parse_address(text)
    if isinstance(network, IPv6Network) and network.num_addresses > 1:
        return network
    return parse_address(text)


class Owners:
    """Whose an address is: answers for a hundred thousand at once."""

    def __init__(self, networks: Iterable[tuple[Network, str]]) -> None:
        self._networks = tuple(networks)
        self._owners: dict[tuple[int, int], dict[int, str]] = {}
        self._inside: dict[int, dict[int, tuple[Network, str]]] = {}
        for network, whose in self._networks:
            key = network.version, network.max_prefixlen - network.prefixlen
            start = int(network.network_address) >> key[1]
            self._owners.setdefault(key, {}).setdefault(start, whose)

    def of(self, address: IpAddress) -> str | None:
        """Say whose it is, the narrowest network first; None for a stranger."""
        for (version, free), owners in sorted(self._owners.items()):
            if version == address.version and (found := owners.get(int(address) >> free)):
                return found
        return None

    def inside(self, source: Network) -> tuple[Network, str] | None:
        """Return a network that lies in this one, and whose it is."""
        length = source.prefixlen
        if source.version == 4 or source.num_addresses == 1:
            return None
        if length not in self._inside:
            free = source.max_prefixlen - length
            self._inside[length] = {
                int(network.network_address) >> free: (network, whose)
                for network, whose in self._networks
                if network.version == source.version and network.prefixlen > length
            }
        start = int(source.network_address) >> (source.max_prefixlen - length)
        return self._inside[length].get(start)


def protected(
    ruleset: Ruleset, policy: Policy, addresses: Mapping[str, tuple[Network, ...]]
) -> Owners:
    """Return whom no ban by hand may name, with the reason for each."""
    line = next((str(i.origin) for i in ruleset.sets if i.name == names.SET_TRUSTED), "")
    ports = {SSH_PORT, policy.admin.ssh_port}
    found = [(ip_network(address), "is this host's own") for address in own_addresses()]
    found += [
        (ip_network(session.client), f"is logged in by ssh ({session.found})")
        for session in ssh_sessions(fallback_ports=ports)
    ]
    found += [(ip_network(end), f"carries {name}, a login") for end, name in far_ends().items()]
    found += [
        (item.network, f"belongs to {item.whose}{_place(item.whose, line)}")
        for item in exempt_by_policy(policy, addresses)
    ]
    # What is live decides, also where a peer lets in everybody or a name has moved on since.
    found += [
        (network, f"is trusted by {item.origin}")
        for item in ruleset.sets
        if item.name.partition("-")[0] == _TRUSTED
        for network in _networks(item)
    ]
    return Owners(found)


def trusted_already(ruleset: Ruleset) -> Owners:
    """Return whom the policy trusts over every transport and from every port."""
    wholly = {names.SET_TRUSTED, names.SET_TRUSTED_TIERS}
    found = [(ip_network(address), "is this host's own") for address in own_addresses()]
    found += [
        (network, f"is trusted by {item.origin} already")
        for item in ruleset.sets
        if item.name in wholly
        for network in item.networks
    ]
    return Owners(found)


def unusable(address: IpAddress) -> str | None:
    """Say why no packet can come from an address; None where one can."""
    return None if may_be_a_peer(address) else "is not an address that packets come from"


def _place(whose: str, line: str) -> str:
    return f" ({line})" if line and whose.startswith("trusted peer") else ""


def _networks(item: AddressSet) -> list[Network]:
    return [*item.networks, *(endpoint.network for endpoint in item.endpoints)]
