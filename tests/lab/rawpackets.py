"""Packets that an honest socket cannot send: spoofed sources and chosen fragment boundaries.

Only bytes and raw sockets; no SIP.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from ipaddress import ip_address
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UDP = socket.IPPROTO_UDP
FRAGMENT_HEADER = 44
MORE_FRAGMENTS = 1
HOP_LIMIT = 64
BATCH = 64


def word_sum(data: bytes) -> int:
    """Return the sum that a checksum is the complement of."""
    # 65536 is 1 modulo 65535, so the one's complement sum of 16-bit words is one remainder.
    return int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 65535


class DatagramBuilder:
    """Build whole IP packets that differ only in source address and source port."""

    def __init__(self, destination: str, dport: int, payload: bytes) -> None:
        self.version = ip_address(destination).version
        self._destination = ip_address(destination).packed
        self._payload = payload
        self._dport = dport
        self._length = 8 + len(payload)
        pseudo_header = self._destination + struct.pack("!II", self._length, UDP)
        fixed = struct.pack("!HH", dport, self._length) + payload
        self._partial_sum = word_sum(pseudo_header) + word_sum(fixed)

    def udp(self, source: bytes, sport: int) -> bytes:
        # A sum of 0 is sent as 0xffff: 0 means "no checksum" and IPv6 forbids that.
        total = (self._partial_sum + word_sum(source) + sport) % 65535
        header = struct.pack("!HHHH", sport, self._dport, self._length, 65535 - total)
        return header + self._payload

    def packet(self, source: bytes, sport: int) -> bytes:
        datagram = self.udp(source, sport)
        if self.version == 4:
            return self._header4(source, 0, 0) + datagram
        return self._header6(source, len(datagram), UDP) + datagram

    def fragments(self, source: bytes, sport: int, splits: Sequence[int]) -> Iterator[bytes]:
        """Yield fragments of one datagram, cut at these offsets of its payload."""
        datagram = self.udp(source, sport)
        edges = [0, *(8 + split for split in splits), len(datagram)]
        if any(edge % 8 for edge in edges[:-1]) or edges != sorted(set(edges)):
            msg = f"cannot split at {list(splits)}; use rising multiples of 8 inside the payload"
            raise ValueError(msg)
        ident = secrets.randbelow(65535) + 1
        for start, end in pairwise(edges):
            piece, more = datagram[start:end], end < len(datagram)
            if self.version == 4:
                yield self._header4(source, ident, (more << 13) | start // 8) + piece
            else:
                extension = struct.pack("!BBHI", UDP, 0, start | (MORE_FRAGMENTS * more), ident)
                yield self._header6(source, len(piece) + 8, FRAGMENT_HEADER) + extension + piece

    def _header4(self, source: bytes, ident: int, fragment: int) -> bytes:
        # With IP_HDRINCL the kernel fills in the total length and the header checksum.
        fields = (0x45, 0, 0, ident, fragment, HOP_LIMIT, UDP, 0, source, self._destination)
        return struct.pack("!BBHHHBBH4s4s", *fields)

    def _header6(self, source: bytes, length: int, following: int) -> bytes:
        fields = (6 << 28, length, following, HOP_LIMIT, source, self._destination)
        return struct.pack("!IHBB16s16s", *fields)


def _raw_socket(version: int) -> socket.socket:
    # IPPROTO_RAW implies that the caller writes the IP header, in both families.
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return raw


def spoof(
    builder: DatagramBuilder,
    destination: str,
    sources: Sequence[str],
    sports: Sequence[int],
    pps: float | None,
) -> int:
    """Send one datagram per source, source ports in turn, and return how many left."""
    ports = cycle(sports)
    started = time.monotonic()
    with _raw_socket(builder.version) as raw:
        for sent, source in enumerate(sources):
            if pps is not None and sent % max(1, min(BATCH, int(pps / 100))) == 0:
                time.sleep(max(0.0, started + sent / pps - time.monotonic()))
            raw.sendto(builder.packet(ip_address(source).packed, next(ports)), (destination, 0))
    return len(sources)


def send_fragments(
    builder: DatagramBuilder, destination: str, source: str, sport: int, splits: Sequence[int]
) -> int:
    """Send one datagram in the fragments asked for and return their number."""
    packets = list(builder.fragments(ip_address(source).packed, sport, splits))
    with _raw_socket(builder.version) as raw:
        for packet in packets:
            raw.sendto(packet, (destination, 0))
    return len(packets)
