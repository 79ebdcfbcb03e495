"""Whom no block list may name: peers, admin networks, this host, and who is logged in by ssh."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compiler.context import Context
from sipfw.deploy.lockout.guard import far_ends
from sipfw.feeds.ranges import networks_of, span_of, touched, without
from sipfw.host.own_addresses import own_addresses
from sipfw.host.sessions import ssh_sessions
from sipfw.policy.merge import Origins
from sipfw.policy.types import Hostname

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.policy.model import Policy
    from sipfw.policy.types import Network


@dataclass(frozen=True, slots=True)
class Exempt:
    """A network that stays out of every block list, and whose it is."""

    network: Network
    whose: str

    def __str__(self) -> str:
        return f"{self.network} ({self.whose})"


def exempt_by_policy(policy: Policy, addresses: Mapping[str, tuple[Network, ...]]) -> list[Exempt]:
    """Return the networks that the policy trusts or admits."""
    admins = Context(policy, Origins(), addresses).admin_networks()
    found = [Exempt(network, "an admin network") for network in admins]
    for peer in policy.trusted_peers:
        networks = list(peer.media)
        for entry in peer.signalling:
            networks += addresses.get(entry.key, ()) if isinstance(entry, Hostname) else [entry]
        # What `allow_any` permits is everybody, and of everybody some may be listed.
        if not peer.allow_any:
            found += [Exempt(network, f"trusted peer {peer.name}") for network in networks]
    return found


def exempt_by_host() -> list[Exempt]:
    """Return the addresses of this host, and of those who are logged in now, with their tunnels."""
    found = [Exempt(ip_network(address), "this host") for address in own_addresses()]
    clients = {session.client for session in ssh_sessions()}
    found += [Exempt(ip_network(client), "logged in by ssh") for client in sorted(clients, key=str)]
    found += [Exempt(ip_network(end), f"carries {name}") for end, name in far_ends().items()]
    return found


def cut_exempt(
    networks: Sequence[Network], exempt: Sequence[Exempt]
) -> tuple[tuple[Network, ...], list[Exempt]]:
    """Cut exempt networks out of a sorted list; return the rest and those that were in it.

    A wider network loses just that part, and is never made wider.
    """
    rest: list[Network] = []
    met: list[Exempt] = []
    for version in (4, 6):
        mine = [network for network in networks if network.version == version]
        spans = [span_of(network) for network in mine]
        hit = [
            each
            for each in exempt
            if each.network.version == version and touched(spans, span_of(each.network))
        ]
        holes = [span_of(each.network) for each in hit]
        rest += networks_of(without(spans, holes), version) if hit else mine
        met += hit
    return tuple(rest), met
