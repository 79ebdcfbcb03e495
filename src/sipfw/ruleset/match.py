"""The conditions of a rule. A match is data; each backend says it in its own words.

Every consumer of `Match` ends in `assert_never`, so that a new variant makes the type checker
fail in each backend that forgot it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network


class L4Proto(StrEnum):
    """Transport protocol in the IP header."""

    UDP = "udp"
    TCP = "tcp"


class Direction(StrEnum):
    """Which end of the packet a match or a set update looks at."""

    SOURCE = "src"
    DESTINATION = "dst"


class CtState(StrEnum):
    """Connection tracking states that a rule may name."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


class TimeUnit(StrEnum):
    """Unit of a rate."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"

    @property
    def seconds(self) -> int:
        """Length in seconds."""
        return {"second": 1, "minute": 60, "hour": 3600}[self.value]


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def overlaps(self, other: PortRange) -> bool:
        """Tell whether the two share a port."""
        return self.first <= other.last and other.first <= self.last

    def shared(self, other: PortRange) -> PortRange:
        """Return the ports that are in both; only for ranges that overlap."""
        return PortRange(max(self.first, other.first), min(self.last, other.last))


def ports_in(ranges: Iterable[PortRange]) -> list[int]:
    """Return every port of some ranges, each once, in order."""
    return sorted({port for item in ranges for port in range(item.first, item.last + 1)})


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` events per `unit`."""

    amount: int
    unit: TimeUnit

    def __str__(self) -> str:
        return f"{self.amount}/{self.unit}"


@dataclass(frozen=True, slots=True)
class PrefixLengths:
    """How many leading bits make one source: 32/128 is one address, 24/64 a network."""

    ip: int
    ip6: int


ONE_ADDRESS = PrefixLengths(32, 128)


@dataclass(frozen=True, slots=True)
class Protocol:
    """The packet is UDP or TCP."""

    proto: L4Proto


@dataclass(frozen=True, slots=True)
class Ports:
    """The packet is of `proto` and its port lies in one of the ranges."""

    proto: L4Proto
    ranges: tuple[PortRange, ...]
    direction: Direction = Direction.DESTINATION


@dataclass(frozen=True, slots=True)
class Address:
    """The address lies in this network. The rule then belongs to that network's family."""

    network: IPv4Network | IPv6Network
    direction: Direction = Direction.SOURCE


@dataclass(frozen=True, slots=True)
class InSet:
    """The address (with the source port where the set's key has one) is in the named set.

    `hot`: asked for every SIP packet, so a backend may write a short list of networks out as
    comparisons: a lookup costs as much as ten of them (docs/performance.md).
    """

    set: str
    direction: Direction = Direction.SOURCE
    hot: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """The packet came in through (source) or leaves through (destination) this interface.

    A `*` at the end of the name stands for any rest.
    """

    name: str
    direction: Direction = Direction.SOURCE

    def fits(self, name: str) -> bool:
        """Tell whether an interface of that name is meant."""
        start, star, _ = self.name.partition("*")
        return name.startswith(start) if star else name == start


@dataclass(frozen=True, slots=True)
class ConntrackState:
    """Connection tracking calls the packet one of these; only valid after it has run."""

    states: tuple[CtState, ...]


@dataclass(frozen=True, slots=True)
class OpenedTo:
    """The connection was opened to one of these ports, whatever NAT has made of its destination.

    Only valid after connection tracking has run.
    """

    ranges: tuple[PortRange, ...]


@dataclass(frozen=True, slots=True)
class TcpSyn:
    """A TCP segment that opens a connection."""


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP (family ip) or ICMPv6 (family ip6) type by number."""

    type: int


# IANA's numbers of what has no ports and a telephone host may carry. ICMP, TCP and UDP have fields
# of their own; AH and IPv6 in IPv6 are extension headers to the kernel and match in IPv4 alone.
IP_PROTOCOLS = {
    "igmp": 2,
    "ipip": 4,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "eigrp": 88,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}


@dataclass(frozen=True, slots=True)
class IpProtocol:
    """An IP protocol by its number (IANA, assigned Internet protocol numbers)."""

    number: int


@dataclass(frozen=True, slots=True)
class ShorterThan:
    """A UDP datagram whose payload has fewer bytes than this."""

    payload_bytes: int


@dataclass(frozen=True, slots=True)
class PayloadAt:
    """The transport payload starts with exactly these bytes (case-sensitive, as in SIP methods).

    Of a TCP stream that is the start of a segment: a message that starts in its middle is not seen.
    IPv4 options and IPv6 extension headers move the payload; `MovedPayload` tells.
    """

    proto: L4Proto
    pattern: bytes
    negate: bool = False


@dataclass(frozen=True, slots=True)
class StartsWithOneOf:
    """The transport payload's first four bytes are one of these words (case-sensitive).

    Four bytes are one comparison in each backend, whatever the number of words.
    """

    words: tuple[bytes, ...]
    proto: L4Proto = L4Proto.UDP


@dataclass(frozen=True, slots=True)
class HasPayload:
    """A TCP segment with at least one byte behind its header."""


@dataclass(frozen=True, slots=True)
class MovedPayload:
    """IPv4 options or IPv6 extension headers stand between the addresses and the transport header.

    xt_u32 and xt_string count from the start of the IP header, so they would read other bytes than
    the switch does.
    """


@dataclass(frozen=True, slots=True)
class PayloadContains:
    """The bytes occur anywhere in the packet, letters compared without case.

    Must be found across the boundary of a reassembled fragment (the kernel's `kmp`, not `bm`).
    """

    pattern: bytes


@dataclass(frozen=True, slots=True)
class RateAbove:
    """The source exceeds a token bucket of its own. `burst` is the bucket's size in packets.

    `name` identifies the bucket table; `with_port` gives every (source, source port) its own
    bucket; `expire` is the idle time in seconds after which a bucket is forgotten.
    """

    name: str
    rate: Rate
    burst: int
    prefix: PrefixLengths
    with_port: bool = False
    expire: int = 60
    table_size: int = 65536

    @property
    def lifetime(self) -> int:
        """Seconds of idleness after which a bucket is forgotten.

        Never before it has refilled: the source would start with a full one again.
        """
        refill = self.burst * self.rate.unit.seconds // self.rate.amount + 1
        return max(self.expire, refill)


@dataclass(frozen=True, slots=True)
class RateWithin:
    """All packets that reach this rule together are within one token bucket."""

    rate: Rate
    burst: int


@dataclass(frozen=True, slots=True)
class SeenAtLeast:
    """The source was recorded `hits` times or more within `seconds` of its first record."""

    list: str
    hits: int
    seconds: int
    table_size: int = 65536
    prefix: PrefixLengths = ONE_ADDRESS


@dataclass(frozen=True, slots=True)
class ConnectionsAbove:
    """The source's prefix holds more tracked connections than this."""

    count: int
    prefix: PrefixLengths


@dataclass(frozen=True, slots=True)
class CountAbove:
    """The address's own counter in a counted set is above `count`. Looking adds one."""

    set: str
    count: int
    direction: Direction = Direction.DESTINATION


@dataclass(frozen=True, slots=True)
class VolumeAbove:
    """The entry's own counter in a counted set is above `size` bytes, headers included.

    Looking adds the packet, and makes the entry where there is none.
    """

    set: str
    size: int
    direction: Direction = Direction.SOURCE


Match = (
    Protocol
    | Ports
    | Address
    | InSet
    | Interface
    | ConntrackState
    | OpenedTo
    | TcpSyn
    | Icmp
    | IpProtocol
    | ShorterThan
    | PayloadAt
    | StartsWithOneOf
    | HasPayload
    | MovedPayload
    | PayloadContains
    | RateAbove
    | RateWithin
    | SeenAtLeast
    | ConnectionsAbove
    | CountAbove
    | VolumeAbove
)
