"""A flood of distinct REGISTERs from spoofed sources: twenty thousand a second and more.

A program of its own, started inside a namespace; it prints one line of JSON when it is done. It
sends whole IP packets in batches by sendmmsg(2), which Python's socket module lacks. Every packet
looks like the REGISTER of a phone behind a home router; it has a source, a source port, a branch,
a tag and a Call-ID of its own, written over those of the packet that had its place before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import socket
import struct
import sys
import time
from collections import deque
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, get_args

from lab import Family, sip
from lab.flood.promptness import be_prompt
from lab.flood.sources import source
from lab.rawpackets import HOP_LIMIT, UDP, word_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 64
# Sent at once. A cap of a thousand a second has a new token each millisecond: between larger
# bursts it would lie there for a phone, and a flood that is a flood takes it at once.
_BURST = 2
_LATE = 0.001
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
SIP_PORT = 5060
_IDENT = "0" * 16
_HOME: dict[Family, str] = {"ip": "192.0.2.200", "ip6": "2001:db8:2:c8::1"}

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    """struct iovec, see readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Mmsghdr(ctypes.Structure):
    """struct mmsghdr, see sendmmsg(2), with its struct msghdr written out."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


class Template:
    """One REGISTER as a whole packet, and where it differs from the next one."""

    def __init__(self, family: Family, target: str) -> None:
        home = _HOME[family]
        message = sip.request(
            "REGISTER",
            source=home,
            destination=target,
            user_agent="Yealink SIP-T46U 108.86.0.45",
            call_id=f"{_IDENT}@{sip.host_text(home)}",
            branch=f"z9hG4bK{_IDENT}",
            from_tag=_IDENT,
            extra_headers=[("Expires", "3600"), ("Supported", "path")],
        )
        length = 8 + len(message)
        there = ip_address(target).packed
        # With IP_HDRINCL the kernel fills in IPv4's total length and header checksum.
        head = (
            struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, HOP_LIMIT, UDP, 0, bytes(4), there)
            if family == "ip"
            else struct.pack("!IHBB16s16s", 6 << 28, length, UDP, HOP_LIMIT, bytes(16), there)
        )
        self.source_at = len(head) - 2 * len(there)
        self.source_end = len(head) - len(there)
        self.port_at = len(head)
        self.packet = head + struct.pack("!4H", 0, SIP_PORT, length, 0) + message
        self.idents_at = _places(self.packet, _IDENT.encode())
        # At an odd offset the two bytes of each 16-bit word change places: times 256.
        self.ident_weight = sum(256 if (at - len(head)) % 2 else 1 for at in self.idents_at)
        blank = self.packet[len(head) :].replace(_IDENT.encode(), bytes(len(_IDENT)))
        pseudo = there + struct.pack("!II", length, UDP)
        self.fixed_sum = word_sum(pseudo) + word_sum(blank)


def _places(text: bytes, wanted: bytes) -> list[int]:
    found = []
    at = text.find(wanted)
    while at >= 0:
        found.append(at)
        at = text.find(wanted, at + 1)
    return found


class Batch:
    """Sixty-four packets side by side, and the call that sends them."""

    def __init__(self, template: Template, target: str) -> None:
        self._template = template
        self._size = len(template.packet)
        self.packets = bytearray(template.packet * BATCH)
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._socket.connect((target, 0))
        first = ctypes.addressof((ctypes.c_char * len(self.packets)).from_buffer(self.packets))
        self._iovecs = (_Iovec * BATCH)(
            *(_Iovec(first + number * self._size, self._size) for number in range(BATCH))
        )
        step = ctypes.sizeof(_Iovec)
        place = ctypes.addressof(self._iovecs)
        self._messages = (_Mmsghdr * BATCH)(
            *(_Mmsghdr(None, 0, place + number * step, 1, None, 0, 0, 0) for number in range(BATCH))
        )

    def fill(
        self, first: int, end: int, next_source: Callable[[], bytes], rng: random.Random
    ) -> None:
        """Give some packets a sender of their own; the UDP checksum is right."""
        template, packets = self._template, self.packets
        source_at, source_end, port_at = template.source_at, template.source_end, template.port_at
        fixed, weight, idents = template.fixed_sum, template.ident_weight, template.idents_at
        for start in range(first * self._size, end * self._size, self._size):
            address = next_source()
            port = 1024 + rng.getrandbits(15)
            ident = b"%016x" % rng.getrandbits(64)
            packets[start + source_at : start + source_end] = address
            packets[start + port_at : start + port_at + 2] = port.to_bytes(2, "big")
            for at in idents:
                packets[start + at : start + at + 16] = ident
            total = (fixed + word_sum(address) + port + weight * word_sum(ident)) % 65535
            check = (65535 - total).to_bytes(2, "big")
            packets[start + port_at + 6 : start + port_at + 8] = check

    def send(self, first: int, end: int) -> None:
        """Hand some packets of the batch to the kernel; a virtual link drops none of them."""
        while first < end:
            place = ctypes.byref(self._messages, first * ctypes.sizeof(_Mmsghdr))
            done = _libc.sendmmsg(self._socket.fileno(), place, end - first, 0)
            if done < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            first += done


class Sent(NamedTuple):
    """How many packets left, from when on, in how many seconds, and which share of them late."""

    packets: int
    began: float
    seconds: float
    late: float


def flood(
    batch: Batch,
    fill: Callable[[int, int], None],
    *,
    rate: int,
    count: int,
    longest: float,
    again: float | None,
) -> Sent:
    """Send `count` packets, `rate` a second.

    With `again` each is sent twice, so many seconds apart, and both times count. It ends after
    `longest` seconds, whatever is missing then.
    """
    pause = BATCH / rate * (1 if again is None else 2)
    # Repeated batches fall into the pauses between the new ones.
    lag = None if again is None else (round(again / pause - 0.5) + 0.5) * pause
    began = time.monotonic()
    made, sent, late = 0, 0, 0
    repeats: deque[tuple[float, bytes]] = deque()
    while sent < count and time.monotonic() < began + longest:
        due = began + made * pause
        fresh = not repeats or (due < repeats[0][0] and sent + BATCH * len(repeats) < count)
        if not fresh:
            due, batch.packets[:] = repeats.popleft()
        for first in range(0, BATCH, _BURST):
            if fresh:
                fill(first, first + _BURST)
            moment = due + first / rate
            time.sleep(max(0.0, moment - time.monotonic()))
            late += time.monotonic() > moment + _LATE
            batch.send(first, first + _BURST)
        sent += BATCH
        if fresh:
            made += 1
            if lag is not None:
                repeats.append((due + lag, bytes(batch.packets)))
    seconds = time.monotonic() - began
    return Sent(sent, began, seconds, late * _BURST / max(1, sent))


def main(argv: Sequence[str]) -> None:
    """Send what the command line asks for and say what was sent."""
    parser = argparse.ArgumentParser(description="Flood a SIP port of a laboratory.")
    parser.add_argument("kind", choices=["random", "networks"])
    parser.add_argument("family", choices=get_args(Family))
    parser.add_argument("target")
    for name, kind in (("rate", int), ("count", int), ("longest", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--again", type=float, help="send each twice, so many seconds apart")
    parser.add_argument("--core", type=int, required=True, help="the processor that it has alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    rng = random.Random(options.seed)
    batch = Batch(Template(options.family, options.target), options.target)
    next_source = source(options.kind, options.family, rng)
    os.sched_setaffinity(0, {options.core})
    be_prompt()
    _libc.prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    _say("begins")
    sent = flood(
        batch,
        lambda first, end: batch.fill(first, end, next_source, rng),
        rate=options.rate,
        count=options.count,
        longest=options.longest,
        again=options.again,
    )
    _say(json.dumps(sent))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
