"""A rule that delivers packets to another port than the one that they were sent to.

NAT comes behind table raw (netfilter_ipv4.h: NF_IP_PRI_NAT_DST -100, NF_IP_PRI_RAW -300), so that
sipfw judges a packet by the port that was asked for. What leads from a port that the policy does
not list to one that it lists is a way past every layer.

Sets of ports are numbers with one bit for each port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.source import Door

PROTOS = frozenset(L4Proto)
EVERY_PORT = (1 << 65536) - 1

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class PortMove:
    """What one rule or program does with the packets that reach it.

    `ports` are those that packets come for, `to` the bits of those that they leave for. `address`
    is None where the host itself gets them, or where nothing tells. `line` is the rule as its own
    program lists it, `where` the place of it, `rule` the place for who takes it out: family or
    program, table, chain and the number in it, counted from 0.
    """

    protos: frozenset[L4Proto]
    ports: int
    to: int
    address: IpAddress | None
    where: str
    line: str
    rule: tuple[str, str, str, int] | None = None


@dataclass(frozen=True, slots=True)
class WayPast:
    """Ports that lead to a guarded one without being guarded themselves."""

    proto: L4Proto
    ports: int
    to: int
    move: PortMove

    @property
    def sentence(self) -> str:
        """Name the rule and what it does."""
        return (
            f"{self.move.where} leads {self.proto} {port_text(self.ports)} to SIP "
            f"{port_text(self.to)} past every layer: {self.move.line}"
        )

    @property
    def advice(self) -> str:
        """Say what to do about it."""
        spans = list(_spans(self.ports))
        if len(spans) > _SHOWN or sum(last - first for first, last in spans) >= _SHOWN:
            return "delete the rule, or let it lead fewer ports there"
        wanted = [str(port) for first, last in spans for port in range(first, last + 1)]
        return f"add {', '.join(wanted)} to signalling.{self.proto} and apply, or delete the rule"


def bits(first: int, last: int) -> int:
    """Return a range of ports as bits; what is no port is left out."""
    last = min(last, 65535)
    return 0 if first > last else (1 << last + 1) - (1 << first)


def ways_past(moves: Collection[PortMove], doors: Collection[Door]) -> Iterator[WayPast]:
    """Yield, once each, what leads to one of `doors` from a port that is none of them."""
    seen = set()
    for proto in L4Proto:
        guarded = 0
        for door in doors:
            guarded |= 1 << door.port if door.proto is proto else 0
        for move in moves:
            past = WayPast(proto, move.ports & ~guarded, move.to & guarded, move)
            key = proto, past.ports, past.to, move.address
            # Both listings of one nf_tables rule, or the rule of both families, are one way.
            if proto in move.protos and past.ports and past.to and key not in seen:
                seen.add(key)
                yield past


def port_text(ports: int) -> str:
    """Write ports for people: `port 7070`, `ports 7070-7080, 9000`, `every other port`."""
    spans = list(_spans(ports))
    if sum(last - first + 1 for first, last in spans) > 60_000:
        return "every other port"
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    more = len(texts) - _SHOWN
    word = "port" if texts == [str(spans[0][0])] else "ports"
    return f"{word} {', '.join(texts[:_SHOWN])}" + (f" and {more} more" if more > 0 else "")


def single_ports(ports: int) -> list[int]:
    """Return them one by one; none where they are more than a handful."""
    spans = list(_spans(ports))
    if sum(last - first + 1 for first, last in spans) > _SHOWN:
        return []
    return [port for first, last in spans for port in range(first, last + 1)]


def _spans(ports: int) -> Iterator[tuple[int, int]]:
    while ports:
        first = (ports & -ports).bit_length() - 1
        run = ports >> first
        # The lowest bit that is not set ends the run.
        length = (~run & run + 1).bit_length() - 1
        yield first, first + length - 1
        ports = run >> length << first + length
