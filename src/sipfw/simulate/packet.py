"""The packet that walks: header fields, payload and what connection tracking calls it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.ruleset.match import CtState, Direction
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpAddress, IpProto


class TcpFlag(StrEnum):
    """The flags that tell the start and the end of a connection."""

    FIN = "fin"
    SYN = "syn"
    RST = "rst"
    ACK = "ack"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. None means that nobody knows this field; the walk then says what it assumed.

    `payload` is what stands behind the UDP or TCP header. `local` tells whether this host itself
    sent it: then, and only then, it comes in through the loopback device. `moved` tells of IPv4
    options or IPv6 extension headers.
    """

    source: IpAddress
    destination: IpAddress | None
    protocol: IpProto
    source_port: int | None = 0
    destination_port: int = 0
    flags: frozenset[TcpFlag] = frozenset()
    icmp_type: int | None = None
    protocol_number: int | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    payload: bytes | None = None
    state: CtState | None = None
    local: bool | None = None
    moved: bool = False

    def __post_init__(self) -> None:
        if self.destination is not None and self.destination.version != self.source.version:
            raise ValueError(f"{self.source} and {self.destination} are of two families")
        for port in (self.source_port, self.destination_port):
            if port is not None and not 0 <= port <= 65535:
                raise ValueError(f"{port} is not a port")

    @property
    def family(self) -> Family:
        """Return the address family."""
        return Family.IP if self.source.version == 4 else Family.IP6

    def address(self, direction: Direction) -> IpAddress | None:
        """Return the address of one end; None where it is not known."""
        return self.source if direction is Direction.SOURCE else self.destination

    def port(self, direction: Direction) -> int | None:
        """Return the port of one end; None where it is not known."""
        return self.source_port if direction is Direction.SOURCE else self.destination_port

    def interface(self, direction: Direction) -> str | None:
        """Return the interface that the packet came in or leaves through."""
        return self.in_interface if direction is Direction.SOURCE else self.out_interface
