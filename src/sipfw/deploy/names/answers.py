"""How far an answer of DNS is believed. Whoever answers may lie: each lie costs itself alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING

from sipfw.compiler.context import Context
from sipfw.deploy.manual_list import Book, by_source, read_page
from sipfw.deploy.names.resolve import ADMINS, host_names, may_be_a_peer, name_of
from sipfw.host.own_addresses import own_addresses
from sipfw.host.sessions import SSH_PORT, ssh_sessions
from sipfw.policy.merge import Origins
from sipfw.policy.names import Names
from sipfw.policy.rules import told_apart
from sipfw.policy.types import Hostname
from sipfw.ruleset.match import ONE_ADDRESS, PrefixLengths, ports_in
from sipfw.ruleset.source import key_address

if TYPE_CHECKING:
    from sipfw.deploy.names.resolve import Address
    from sipfw.host.files import Layout
    from sipfw.host.sessions import Session
    from sipfw.policy.model import Peer, Policy
    from sipfw.resolver.records import FoundAddress, Located
    from sipfw.ruleset.addresses import IpAddress

# RFC 1918, RFC 6598 (behind a provider's NAT), RFC 4193.
_PRIVATE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
# RFC 4291, 2.4 and IANA's list: the only unicast that is routed, and NAT64 (RFC 6052).
_ROUTED6 = (ip_network("2000::/3"), ip_network("64:ff9b::/96"))
# Nobody sells names below these, so who answers for them is the operator's own network: RFC 6762,
# appendix G, RFC 8375, and ICANN's reservation of `internal`.
_OWN_NAMES = (
    "internal",
    "lan",
    "local",
    "home.arpa",
    "intranet",
    "private",
    "corp",
    "home",
)
# More about one name nobody reads.
_MOST_REMARKS = 3


@dataclass(frozen=True, slots=True)
class Listed:
    """An address that an answer lists, and the record it came from."""

    network: Address
    via: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What of an answer is believed; see `resolver.records.Found` for the rest.

    `local` means that all of it stands in this host's own hosts file.
    """

    listed: tuple[Listed, ...]
    ttl: int = 0
    remarks: tuple[str, ...] = ()
    incomplete: str | None = None
    local: bool = False


class _Narrow:
    """The networks that the file itself gives to peers: a name must not widen what they may do."""

    def __init__(self, policy: Policy) -> None:
        self._by_tier = policy.tiers.enforce
        self._named: dict[str, list[Peer]] = defaultdict(list)
        self._places: dict[tuple[int, int], dict[int, list[Peer]]] = defaultdict(dict)
        for peer in policy.trusted_peers:
            for entry in peer.signalling:
                if isinstance(entry, Hostname):
                    self._named[entry.key].append(peer)
                # Everybody is inside `allow_any`, and that is no word about anybody.
                elif not peer.allow_any:
                    self._place(entry, peer)

    def _place(self, network: Address, peer: Peer) -> None:
        free = network.max_prefixlen - network.prefixlen
        start = int(network.network_address) >> free
        self._places[network.version, free].setdefault(start, []).append(peer)

    def owner(self, key: str, address: IpAddress) -> str | None:
        """Return the peer whose trust a name with this address would widen."""
        mine = self._named.get(key, ())
        for (version, free), owners in self._places.items():
            found = owners.get(int(address) >> free, ()) if version == address.version else ()
            for peer in found:
                if any(peer is not one and self._is_less(peer, one) for one in mine):
                    return peer.name
        return None

    def _is_less(self, one: Peer, other: Peer) -> bool:
        if told_apart(one, other, same=False):
            return False
        return bool(
            (one.source_ports and ports_in(one.source_ports) != ports_in(other.source_ports))
            or (one.transports and set(one.transports) != set(other.transports))
            or (self._by_tier and one.tier is not None and one.tier != other.tier)
        )


@dataclass(frozen=True, slots=True)
class Standards:
    """What answers are held against: the policy's bounds, and who is who on this host.

    `narrow` knows whom the policy trusts for less than it would trust a name. `logged_in` are
    those whose way in no answer may shut.
    """

    names: Names = field(default_factory=Names)
    own: frozenset[IpAddress] = frozenset()
    banned: frozenset[IpAddress] = frozenset()
    banned_prefix: PrefixLengths = ONE_ADDRESS
    narrow: _Narrow | None = None
    logged_in: frozenset[IpAddress] = frozenset()

    def judge(self, key: str, use: str, found: Located) -> Answer | str:
        """Return what is believed of an answer, or why nothing is; `use` is the name's field."""
        listed: dict[Address, str] = {}
        lies: list[str] = []
        for item in found.addresses:
            address = getattr(item.address, "ipv4_mapped", None) or item.address
            why = self._doubt(key, use, address, item)
            if why is None:
                listed[ip_network(address)] = item.via
            else:
                lies.append(f"{address} {why}")
        remarks = (*found.remarks, *lies)
        if not listed:
            return _some(lies) or "the answer holds no usable address"
        if len(listed) > self.names.max_addresses:
            return f"the answer holds {len(listed):,} addresses"
        return Answer(
            tuple(Listed(n, listed[n]) for n in sorted(listed, key=_order)),
            found.ttl,
            remarks if len(remarks) <= _MOST_REMARKS else (_some(remarks),),
            found.incomplete,
            all(item.local for item in found.addresses),
        )

    def _doubt(self, key: str, use: str, address: IpAddress, item: FoundAddress) -> str | None:
        """Say why an address is not believed."""
        if not may_be_a_peer(address) or address.is_link_local or _is_unrouted(address):
            return "is nobody's address"
        if _is_private(address) and not (item.local or self._may_be_private(key)):
            return "is private, and the name is not in names.allow_private"
        if address in self.own:
            return "is this host itself"
        if use == ADMINS:
            return None
        if self.banned and key_address(address, self.banned_prefix) in self.banned:
            return "is banned by hand; see sipfw bans"
        whose = None if self.narrow is None else self.narrow.owner(key, address)
        return None if whose is None else f"belongs to {whose}, whom the policy trusts for less"

    def _may_be_private(self, key: str) -> bool:
        name = name_of(key)
        return name in self.names.allow_private or name.endswith(
            tuple(f".{ending}" for ending in _OWN_NAMES)
        )


def standards(policy: Policy, layout: Layout | None = None) -> Standards:
    """Read what answers for this policy are held against.

    Without `layout` the firewall is for another host, so nobody is banned and nobody is this one.
    """
    prefix = Context(policy, Origins()).source
    page = None if layout is None else by_source(read_page(layout, Book.BANS), prefix)
    sessions: tuple[Session, ...] = ()
    # The processes of a host are many, and only an administrator's name needs to know.
    if ADMINS in host_names(policy).values():
        sessions = ssh_sessions(fallback_ports={SSH_PORT, policy.admin.ssh_port})
    return Standards(
        policy.names,
        frozenset(() if layout is None else own_addresses()),
        frozenset(() if page is None else page.entries),
        prefix,
        _Narrow(policy),
        frozenset(session.client for session in sessions),
    )


def _is_private(address: IpAddress) -> bool:
    return any(net.version == address.version and address in net for net in _PRIVATE)


def _is_unrouted(address: IpAddress) -> bool:
    if not isinstance(address, IPv6Address) or _is_private(address):
        return False
    return not any(address in network for network in _ROUTED6)


def _order(network: Address) -> tuple[int, int]:
    return network.version, int(network.network_address)


def _some(texts: tuple[str, ...] | list[str]) -> str:
    """Join the first few; an answer may hold thousands."""
    more = len(texts) - _MOST_REMARKS
    shown = ", ".join(texts[:_MOST_REMARKS])
    return f"{shown}, and {more:,} more" if more > 0 else shown
