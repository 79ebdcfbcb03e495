"""Injecting frames with BPF_PROG_TEST_RUN, as if a device had received them; no packet knowledge.

The kernel copies one frame, runs an XDP program on every copy and hands it to the stack in the
caller's context (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18), so the caller's CPU time is the price
of a packet. The program is assembled here: no compiler and no library is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_MAP_TYPE_ARRAY, _PROG_TYPE_XDP = 2, 6
_XDP_PASS = 2
_LIVE_FRAMES = 2
_BATCH = 64
_PSEUDO_MAP_VALUE = 2

ETHERNET_HEADER = 14
_IP_CHECKSUM = ETHERNET_HEADER + 10
_SOURCE = ETHERNET_HEADER + 12
_SHORTEST = ETHERNET_HEADER + 20

# Odd, so that n -> n * _STRIDE is a permutation of any 2**k sources: neighbours in time are no
# neighbours in a /24.
_STRIDE = 0x61C89E37
MOST_SOURCES = 1 << 30

_libc = ctypes.CDLL(None, use_errno=True)


class XdpError(Exception):
    """The kernel refused; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one injection cost this thread."""

    packets: int
    cpu_ns: int
    wall_ns: int


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    number = _SYSCALL_BPF.get(platform.machine())
    if number is None:
        raise XdpError(f"bpf(2) has no known number on {platform.machine()}")
    result: int = _libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise XdpError(f"bpf command {command}: {os.strerror(code)} ({errno.errorcode[code]})")
    return result


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


def _program(counter: int, mask: int, low: int, others: int, start: int) -> bytes:
    """Assemble: the source address becomes low | (n * stride + start) & mask, n counting.

    The header checksum is written whole from the sum of all other words: pages come back to the
    kernel's pool as the last run left them, so nothing may be relative to the old content.
    """
    data, end, limit, place, n, total = 2, 3, 4, 5, 0, 1
    body = [
        _insn(0x18, place, _PSEUDO_MAP_VALUE, 0, counter),  # place = &map[0]
        _insn(0x00),  # upper half of the 64-bit constant
        _insn(0x79, n, place),  # n = *place
        _insn(0x07, n, imm=1),  # n += 1
        _insn(0x7B, place, n),  # *place = n
        _insn(0x24, n, imm=_STRIDE),  # n *= stride, in 32 bits like all that follows with n
        _insn(0x04, n, imm=_signed(start)),  # n += start
        _insn(0x54, n, imm=mask),  # n &= mask
        _insn(0x44, n, imm=_signed(low)),  # n |= low
        _insn(0xBF, total, n),  # total = n
        _insn(0x77, total, imm=16),  # total >>= 16
        _insn(0xBF, limit, n),  # limit = n
        _insn(0x57, limit, imm=0xFFFF),  # limit &= 0xffff
        _insn(0x0F, total, limit),  # total += limit
        _insn(0xDC, n, imm=32),  # n to network order
        _insn(0x63, data, n, _SOURCE),  # source address = n
        _insn(0x07, total, imm=others),  # total += the other words
        *_fold(total, limit),
        *_fold(total, limit),
        _insn(0xA7, total, imm=-1),  # total = ~total
        _insn(0xDC, total, imm=16),  # total to network order
        _insn(0x6B, data, total, _IP_CHECKSUM),
    ]
    head = [
        _insn(0x61, data, 1, 0),  # data = ctx->data
        _insn(0x61, end, 1, 4),  # end = ctx->data_end
        _insn(0xBF, limit, data),
        _insn(0x07, limit, imm=_SHORTEST),
        _insn(0x2D, limit, end, len(body)),  # too short: skip the body
    ]
    return b"".join([*head, *body, _insn(0xB7, 0, imm=_XDP_PASS), _insn(0x95)])


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def _fold(total: int, scratch: int) -> list[bytes]:
    return [
        _insn(0xBF, scratch, total),  # scratch = total
        _insn(0x77, scratch, imm=16),  # scratch >>= 16
        _insn(0x57, total, imm=0xFFFF),  # total &= 0xffff
        _insn(0x0F, total, scratch),  # total += scratch
    ]


class Injector:
    """One IPv4 frame and the program that gives each copy one of `sources` addresses.

    They come in an order of their own, which begins anywhere: at `start`, below 2**32.
    """

    def __init__(self, frame: bytes, sources: int = 1, start: int = 0) -> None:
        if sources & (sources - 1) or not 1 <= sources <= MOST_SOURCES:
            raise XdpError(f"{sources} sources: use a power of two up to {MOST_SOURCES}")
        words = struct.unpack("!10H", frame[ETHERNET_HEADER : ETHERNET_HEADER + 20])
        low = words[6] << 16 | words[7]
        if low & (sources - 1):
            raise XdpError("the source address must be a multiple of the number of sources")
        # Word 5 is the checksum itself, words 6 and 7 are what the program writes.
        others = sum(words) - words[5] - words[6] - words[7]
        self._frame = ctypes.create_string_buffer(frame, len(frame))
        self._map = _bpf(_MAP_CREATE, struct.pack("<5I", _MAP_TYPE_ARRAY, 4, 8, 1, 0))
        try:
            self._program = _load(_program(self._map, sources - 1, low, others, start))
        except XdpError:
            os.close(self._map)
            raise

    def run(self, interface_index: int, packets: int) -> Spent:
        """Inject `packets` copies as received by an interface of the caller's namespace."""
        # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = ctypes.create_string_buffer(
            struct.pack("<6I", 0, len(self._frame), 0, interface_index, 0, 0), 24
        )
        attributes = struct.pack(
            "<IIIIQQIIIIQQIII4x",
            self._program,
            0,
            len(self._frame),
            0,
            ctypes.addressof(self._frame),
            0,
            packets,
            0,
            len(context),
            0,
            ctypes.addressof(context),
            0,
            _LIVE_FRAMES,
            0,
            _BATCH,
        )
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        _bpf(_PROG_TEST_RUN, attributes)
        return Spent(packets, time.thread_time_ns() - cpu, time.perf_counter_ns() - wall)

    def close(self) -> None:
        """Release program and map."""
        os.close(self._program)
        os.close(self._map)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _load(code: bytes) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    attributes = struct.pack(
        "<IIQQIIQII16s",
        _PROG_TYPE_XDP,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        1,
        len(log),
        ctypes.addressof(log),
        0,
        0,
        b"bench",
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except XdpError as error:
        raise XdpError(f"{error}: {log.value.decode(errors='replace')}") from None
