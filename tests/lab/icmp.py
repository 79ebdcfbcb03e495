"""ICMP of both families from raw sockets: echo, and whatever else a test wants to be sent.

Debian has `ping` in a package of its own, and nothing sends a chosen error.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from ipaddress import ip_address

from lab.listeners import readable
from lab.rawpackets import DatagramBuilder, word_sum

# Echo request and reply (RFC 792, RFC 4443).
ECHO = {4: (8, 0), 6: (128, 129)}
# Destination unreachable, fragmentation needed; packet too big.
TOO_BIG = {4: (3, 4), 6: (2, 0)}


def send(destination: str, kind: int, code: int, body: bytes) -> None:
    """Send one message; `body` is everything behind the checksum."""
    with _raw_socket(destination) as raw:
        raw.sendto(_message(destination, kind, code, body), (destination, 0))


def ping(destination: str, timeout: float) -> bool:
    """Send one echo request and tell whether its answer came in time."""
    kind, answer = ECHO[ip_address(destination).version]
    body = secrets.token_bytes(16)
    deadline = time.monotonic() + timeout
    with _raw_socket(destination) as raw:
        raw.sendto(_message(destination, kind, 0, body), (destination, 0))
        while readable([raw], deadline - time.monotonic()):
            packet = raw.recv(65535)
            # A raw socket of IPv4 has the IP header before the message.
            message = packet[20:] if ip_address(destination).version == 4 else packet
            if message[0] == answer and message[4:] == body:
                return True
    return False


def too_big(destination: str, mtu: int, quoted: bytes) -> None:
    """Tell `destination` that its packet, quoted from the IP header on, met a link of that MTU."""
    kind, code = TOO_BIG[ip_address(destination).version]
    send(destination, kind, code, struct.pack("!I", mtu) + quoted)


def quoted(source: str, sport: int, destination: str, dport: int, payload: bytes) -> bytes:
    """Return the packet that `source` has sent, as a router on its way quotes it."""
    return DatagramBuilder(destination, dport, payload).packet(ip_address(source).packed, sport)


def _raw_socket(destination: str) -> socket.socket:
    if ip_address(destination).version == 4:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


def _message(destination: str, kind: int, code: int, body: bytes) -> bytes:
    # The kernel fills in the checksum of ICMPv6, whose sum is over addresses too.
    bare = struct.pack("!BBH", kind, code, 0) + body
    checksum = 65535 - word_sum(bare) if ip_address(destination).version == 4 else 0
    return struct.pack("!BBH", kind, code, checksum) + body
