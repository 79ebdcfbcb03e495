"""Sockets of this process inside the lab's namespaces, and packets that no socket would send.

Faster than the lab's agents where a test plays many phones at once; knows no SIP.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from lab.rawpackets import DatagramBuilder
from netns.namespace_thread import thread_inside

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab import Node

    T = TypeVar("T")

Place: TypeAlias = tuple[str, int]

IP_FREEBIND, IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h
RECEIVE_BUFFER = 8 << 20
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
TCP_SYN = 2
HOP_BY_HOP, DESTINATION_OPTIONS = 0, 60


def version_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET


class Wire:
    """Open sockets in a namespace and close them all at the end."""

    def __init__(self) -> None:
        self._opened: list[socket.socket] = []

    def udp(self, node: Node, place: Place) -> socket.socket:
        return self._kept(node, lambda: _bound(socket.SOCK_DGRAM, place))

    def tcp(self, node: Node, source: Place, target: Place, timeout: float = 1.0) -> socket.socket:
        """Connect, or raise TimeoutError or ConnectionError."""

        def connected() -> socket.socket:
            opened = _bound(socket.SOCK_STREAM, source)
            opened.settimeout(timeout)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                opened.connect(target)
            except OSError:
                opened.close()
                raise
            return opened

        return self._kept(node, connected)

    def listening(self, node: Node, place: Place) -> socket.socket:
        def listen() -> socket.socket:
            opened = _bound(socket.SOCK_STREAM, place)
            opened.listen(256)
            return opened

        return self._kept(node, listen)

    def raw(self, node: Node, target: str) -> socket.socket:
        """Return a socket for whole packets."""
        return self._kept(
            node,
            lambda: socket.socket(version_of(target), socket.SOCK_RAW, socket.IPPROTO_RAW),
        )

    def keep(self, opened: socket.socket) -> socket.socket:
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def _kept(self, node: Node, make: Callable[[], socket.socket]) -> socket.socket:
        with thread_inside(node.namespace) as inside:
            return self.keep(inside.submit(make).result())


def _bound(kind: socket.SocketKind, place: Place) -> socket.socket:
    opened = socket.socket(version_of(place[0]), kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    try:
        opened.bind(place)
    except OSError:
        opened.close()
        raise
    return opened


def datagram(source: Place, target: Place, payload: bytes, *, claimed: int | None = None) -> bytes:
    """Return a whole packet; `claimed` is the length that its UDP header tells."""
    builder = DatagramBuilder(target[0], target[1], payload)
    whole = bytearray(builder.packet(ip_address(source[0]).packed, source[1]))
    if claimed is not None:
        struct.pack_into("!H", whole, len(whole) - len(payload) - 4, claimed)
    return bytes(whole)


def with_options4(source: Place, target: Place, payload: bytes, options: bytes) -> bytes:
    """Return an IPv4 datagram whose header carries options; their length is a multiple of 4."""
    packet = datagram(source, target, payload)
    words = 5 + len(options) // 4
    return bytes([0x40 | words]) + packet[1:20] + options + packet[20:]


def with_extension6(
    source: Place, target: Place, payload: bytes, header: int, text: bytes = b""
) -> bytes:
    """Return an IPv6 datagram behind a header of options; one that nobody knows holds a text."""
    packet = datagram(source, target, payload)
    following = packet[40:]
    # The two highest bits say: skip what you do not know (RFC 8200, 4.2).
    room = 4 + 8 * (-(-len(text) // 8))
    option = bytes([0x1E, room]) + text.ljust(room, b"\0")
    extension = struct.pack("!BB", socket.IPPROTO_UDP, (2 + len(option)) // 8 - 1) + option
    length = struct.pack("!H", len(extension) + len(following))
    return packet[:4] + length + bytes([header]) + packet[7:40] + extension + following


def syn(source: Place, target: Place) -> bytes:
    """Return a packet that opens a TCP connection, whoever it claims to come from."""
    own, other = ip_address(source[0]).packed, ip_address(target[0]).packed
    fields = (source[1], target[1], 1, 0, 5 << 12 | TCP_SYN, 64240, 0, 0)
    segment = struct.pack("!HHIIHHHH", *fields)
    pseudo = own + other + struct.pack("!II", len(segment), socket.IPPROTO_TCP)
    total = 65535 - int.from_bytes(pseudo + segment, "big") % 65535
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    if len(own) == 4:
        # With IP_HDRINCL the kernel fills in the total length and the header checksum.
        head = (0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0, own, other)
        return struct.pack("!BBHHHBBH4s4s", *head) + segment
    head6 = (6 << 28, len(segment), socket.IPPROTO_TCP, 64, own, other)
    return struct.pack("!IHBB16s16s", *head6) + segment
