"""One IR match to nft's words, for matches that need no set of buckets.

Syntax is that of nft 1.0.6; `@ih` needs kernel 5.16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.ruleset.match import (
    Address,
    ConntrackState,
    Direction,
    HasPayload,
    Icmp,
    InSet,
    Interface,
    IpProtocol,
    L4Proto,
    Match,
    MovedPayload,
    PayloadAt,
    PortRange,
    Ports,
    PrefixLengths,
    Protocol,
    RateWithin,
    ShorterThan,
    StartsWithOneOf,
    TcpSyn,
)
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.ruleset.model import AddressSet, Ruleset

SUFFIX = {Family.IP: "4", Family.IP6: "6"}

_BITS = {Family.IP: 32, Family.IP6: 128}
_UDP_HEADER = 8
_PORTED = frozenset({SetKind.PEER_ENDPOINT, SetKind.ENDPOINT, SetKind.TARGET})

# A raw payload expression compares at most 128 bits (NFT_REG_SIZE).
_CHUNK = 16


def address_type(family: Family) -> str:
    """Return nft's type of an address."""
    return "ipv4_addr" if family is Family.IP else "ipv6_addr"


def end(direction: Direction, family: Family) -> str:
    """Return the expression of the source or destination address."""
    return f"{family.value} {'saddr' if direction is Direction.SOURCE else 'daddr'}"


def masked(address: str, prefix: PrefixLengths, family: Family) -> str:
    """Return an address expression cut to a prefix: dynamic sets take no intervals."""
    bits = prefix.ip if family is Family.IP else prefix.ip6
    if bits == _BITS[family]:
        return address
    if family is Family.IP:
        mask = (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF
        return f"{address} and {'.'.join(str(mask >> shift & 255) for shift in (24, 16, 8, 0))}"
    groups, rest = divmod(bits, 16)
    parts = ["ffff"] * groups + ([f"{(0xFFFF << (16 - rest)) & 0xFFFF:x}"] if rest else [])
    return f"{address} and {':'.join(parts)}{'::' if len(parts) < 8 else ''}"


def plain(match: Match, family: Family) -> str:
    """Return the words of a match that has one form only."""
    match match:
        case Protocol():
            return f"meta l4proto {match.proto}"
        case Ports():
            side = "dport" if match.direction is Direction.DESTINATION else "sport"
            return f"{match.proto} {side} {_port_set(match.ranges)}"
        case Interface():
            return _interface(match)
        case ConntrackState():
            return f"ct state {','.join(match.states)}"
        case TcpSyn():
            return "tcp flags & (fin | syn | rst | ack) == syn"
        case Icmp():
            return f"{'icmp' if family is Family.IP else 'icmpv6'} type {match.type}"
        case IpProtocol():
            return f"meta l4proto {match.number}"
        case StartsWithOneOf():
            return f"meta l4proto {match.proto} {words_at_start(match)}"
        case HasPayload():
            # What is not there cannot be compared.
            return "meta l4proto tcp @ih,0,8 0x0-0xff"
        case MovedPayload():
            return "ip hdrlength != 5" if family is Family.IP else "ip6 nexthdr != { 6, 17 }"
        case ShorterThan():
            return f"udp length < {_UDP_HEADER + match.payload_bytes}"
        case RateWithin():
            return f"limit rate {match.rate} burst {match.burst} packets"
        case _:
            raise AssertionError(f"{match} is handled elsewhere")


def words_at_start(match: StartsWithOneOf) -> str:
    """Look the first word behind the header up; of which protocol that is, is for others to say."""
    words = [f"0x{word.hex()}" for word in match.words]
    listed = words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
    return f"{_payload(match.proto)},32 {listed}"


def _payload(proto: L4Proto, at: int = 0) -> str:
    """Return the start of a raw payload expression that begins `at` bytes behind the header."""
    return f"@th,{8 * (_UDP_HEADER + at)}" if proto is L4Proto.UDP else f"@ih,{8 * at}"


def _interface(match: Interface) -> str:
    """Compare an index where the name can have one only: one word instead of sixteen bytes.

    The loopback device is the first of every network namespace (loopback_net_init).
    """
    side = "iif" if match.direction is Direction.SOURCE else "oif"
    return f'{side} "lo"' if match.name == "lo" else f'{side}name "{match.name}"'


def in_set(match: InSet, ruleset: Ruleset, family: Family) -> list[str]:
    """Return a lookup for each of the sets that hold one policy set's elements."""
    item = ruleset.set(match.set)
    key = set_key(item, match.direction, family)
    if item.dynamic or item.kind is SetKind.PEER_ENDPOINT:
        return [f"{key} @{match.set}{SUFFIX[family]}"]
    return [f"{key} @{part.name}{SUFFIX[family]}" for part in parts(item, ruleset, family)]


def set_key(item: AddressSet, direction: Direction, family: Family) -> str:
    """Return the expression that is looked up in a set, or written to it."""
    address = end(direction, family)
    if item.kind in _PORTED:
        from_here = direction is Direction.SOURCE and item.kind is not SetKind.TARGET
        side = "sport" if from_here else "dport"
        return f"{address} . meta l4proto . th {side}"
    return masked(address, item.prefix, family)


def set_type(item: AddressSet, family: Family) -> str:
    """Return nft's type of what `set_key` returns."""
    kind = address_type(family)
    return f"{kind} . inet_proto . inet_service" if item.kind in _PORTED else kind


@dataclass(frozen=True, slots=True)
class Part:
    """One of the sets that hold a set's elements; its name is without the suffix of the family."""

    name: str
    members: list[IPv4Network | IPv6Network]
    of_networks: bool


def parts(item: AddressSet, ruleset: Ruleset, family: Family) -> list[Part]:
    """Split a set into single addresses and networks.

    A hash finds an address in one step; networks need a tree whose price grows with its size.
    """
    version = 4 if family is Family.IP else 6
    mine = [network for network in item.networks if network.version == version]
    networks = [network for network in mine if network.prefixlen < network.max_prefixlen]
    if not networks and not item.resolved:
        return [Part(item.name, mine, of_networks=False)]
    hosts = [network for network in mine if network.prefixlen == network.max_prefixlen]
    name = name_of_networks(item.name, {other.name for other in ruleset.sets})
    found = [Part(name, networks, of_networks=True)]
    if hosts or item.resolved:
        found.insert(0, Part(item.name, hosts, of_networks=False))
    return found


def name_of_networks(name: str, sets: Collection[str]) -> str:
    """Name what holds the networks of a set beside its single addresses, among these `sets`.

    A block list may be called `my` and another `my-nets`; no name in a policy has an underscore.
    """
    usual = f"{name}-nets"
    return f"{name}_nets" if usual in sets else usual


def _port_set(ranges: tuple[PortRange, ...]) -> str:
    texts = [str(item) for item in ranges]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def address(match: Address, family: Family) -> list[str]:
    """Return the words of an address match; nothing in the other family."""
    if (match.network.version == 4) != (family is Family.IP):
        return []
    return [f"{end(match.direction, family)} {match.network}"]


def payload_at(match: PayloadAt) -> list[str]:
    """Compare at a fixed offset. A packet that ends before it matches neither `==` nor `!=`."""
    operator = "!= " if match.negate else ""
    chunks = [
        match.pattern[index : index + _CHUNK] for index in range(0, len(match.pattern), _CHUNK)
    ]
    words = [f"meta l4proto {match.proto}"]
    for number, chunk in enumerate(chunks):
        place = _payload(match.proto, _CHUNK * number)
        words.append(f"{place},{8 * len(chunk)} {operator}0x{chunk.hex()}")
    if not match.negate:
        return [" ".join(words)]
    if len(chunks) > 1 or match.proto is not L4Proto.UDP:
        raise AssertionError("only a short UDP pattern can be negated")
    # The commoner case first: an attacker's packet is rarely too short to be looked at.
    return [" ".join(words), f"udp length < {_UDP_HEADER + len(match.pattern)}"]
