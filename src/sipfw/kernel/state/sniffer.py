"""A short look at the SIP packets that arrive, before any rule sees them. Changes no rule.

A packet socket with a filter in the kernel: packets of other ports, RTP above all, are never
copied. It ends by itself, by time or by number.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sipfw.ruleset.addresses import IpAddress


_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_ETH_P_ALL = 3
_IPV4, _IPV6 = 0x0800, 0x86DD
_OUTGOING = 4
_TCP, _UDP = 6, 17
# Longer ones are cut: what a signature could find behind this is missed in the sample.
_LARGEST = 4096
_BUFFER = 1 << 21
# Counting these takes a second of one core.
_MOST_COUNTED = 100_000
# So that one flood does not hide everybody else.
_MOST_OF_ONE = 100
# A filter's jump is one byte long.
_MOST_PORTS = 240

# Opcodes of the classic filter machine (linux/filter.h).
_LOAD_BYTE, _LOAD_HALF, _LOAD_HALF_X = 0x30, 0x28, 0x48
_HEADER_TO_X = 0xB1
_AND, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x54, 0x15, 0x45, 0x06


@dataclass(frozen=True, slots=True)
class Sniffed:
    """One packet that arrived. `flags` is TCP's byte of flags, 0 for UDP."""

    source: IpAddress
    destination: IpAddress
    tcp: bool
    source_port: int
    destination_port: int
    flags: int
    payload: bytes
    interface: str
    moment: float


@dataclass(slots=True)
class Arrived:
    """How many packets of one address were seen, and when."""

    packets: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What arrived in some seconds. `packets` are those to look into, at most some of each address.

    `missed` counts those that came faster than they could be counted.
    """

    packets: tuple[Sniffed, ...]
    arrived: Mapping[IpAddress, Arrived]
    seconds: float
    missed: int


def sniff(udp: Collection[int], tcp: Collection[int], seconds: float, most: int) -> Sample:
    """Return what arrives for these ports, at most `most` packets of it to look into.

    Raises BackendError where this kernel has no packet sockets.
    """
    packets: list[Sniffed] = []
    arrived: dict[IpAddress, Arrived] = {}
    counted = 0
    ports = sorted({*udp, *tcp})[:_MOST_PORTS]
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as tap:
            _attach(tap, ports)
            _drain(tap)
            # Asking for the number sets it back.
            _missed(tap)
            started = time.monotonic()
            while counted < _MOST_COUNTED and (left := started + seconds - time.monotonic()) > 0:
                if not select.select([tap], [], [], left)[0]:
                    break
                packet = _received(tap)
                if packet is None or packet.destination_port not in (tcp if packet.tcp else udp):
                    continue
                counted += 1
                one = arrived.setdefault(packet.source, Arrived(0, packet.moment, packet.moment))
                one.packets, one.last = one.packets + 1, packet.moment
                if one.packets <= _MOST_OF_ONE and len(packets) < most:
                    packets.append(packet)
            looked = time.monotonic() - started
            return Sample(tuple(packets), arrived, looked, _missed(tap))
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, str(error))
        raise BackendError(f"cannot listen to arriving packets: {reason}") from error


def _missed(tap: socket.socket) -> int:
    """Return how many packets found no room since the start (packet(7), struct tpacket_stats)."""
    _, dropped = struct.unpack("II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return int(dropped)


def _drain(tap: socket.socket) -> None:
    """Throw away what came in before the filter was there."""
    tap.settimeout(0)
    try:
        while True:
            tap.recv(1)
    except BlockingIOError:
        pass
    finally:
        tap.settimeout(None)


def _received(tap: socket.socket) -> Sniffed | None:
    data, (interface, protocol, direction, *_) = tap.recvfrom(_LARGEST)
    if direction == _OUTGOING or protocol not in {_IPV4, _IPV6}:
        return None
    try:
        return _parsed(data, interface)
    except (struct.error, IndexError, ValueError):
        return None


def _parsed(data: bytes, interface: str) -> Sniffed:
    if data[0] >> 4 == 4:
        start, protocol = 4 * (data[0] & 0xF), data[9]
        source: IpAddress = IPv4Address(data[12:16])
        destination: IpAddress = IPv4Address(data[16:20])
        end = int.from_bytes(data[2:4], "big")
    else:
        start, protocol = 40, data[6]
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        end = 40 + int.from_bytes(data[4:6], "big")
    source_port, port = struct.unpack_from("!HH", data, start)
    tcp = protocol == _TCP
    payload = start + (4 * (data[start + 12] >> 4) if tcp else 8)
    flags = data[start + 13] if tcp else 0
    # A short frame is padded up to Ethernet's smallest one.
    return Sniffed(
        source,
        destination,
        tcp,
        source_port,
        port,
        flags,
        data[payload:end],
        interface,
        time.time(),
    )


def _attach(tap: socket.socket, ports: list[int]) -> None:
    program = b"".join(struct.pack("HBBI", *line) for line in program_for(ports))
    buffer = create_string_buffer(program)
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    tap.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HL", len(program) // 8, addressof(buffer)),
    )


def program_for(ports: list[int]) -> list[tuple[int, int, int, int]]:
    """Return a filter that takes UDP and TCP of either family to one of these ports.

    A line is (opcode, lines to skip if true, lines to skip if not, number). First fragments only:
    the others have no ports.
    """
    tail = [(_IF_EQUAL, len(ports) - index, 0, port) for index, port in enumerate(ports)]
    tail += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, _LARGEST)]
    # IPv6: next header, destination port; other headers between are not followed.
    six = [
        (_LOAD_BYTE, 0, 0, 6),
        (_IF_EQUAL, 1, 0, _UDP),
        (_IF_EQUAL, 0, len(ports) + 1, _TCP),
        (_LOAD_HALF, 0, 0, 42),
    ]
    four = [
        (_LOAD_BYTE, 0, 0, 9),
        (_IF_EQUAL, 1, 0, _UDP),
        (_IF_EQUAL, 0, len(ports) + 4, _TCP),
        (_LOAD_HALF, 0, 0, 6),
        (_IF_ANY_BIT, len(ports) + 2, 0, 0x1FFF),
        (_HEADER_TO_X, 0, 0, 0),
        (_LOAD_HALF_X, 0, 0, 2),
    ]
    head = [
        (_LOAD_BYTE, 0, 0, 0),
        (_AND, 0, 0, 0xF0),
        (_IF_EQUAL, 2, 0, 0x40),
        (_IF_EQUAL, 1 + len(four) + len(tail), 0, 0x60),
        (_RETURN, 0, 0, 0),
    ]
    return [*head, *four, *tail, *six, *tail]
