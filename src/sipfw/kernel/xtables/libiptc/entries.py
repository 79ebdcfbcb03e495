"""The entries of a legacy table as the kernel hands them out, to see whether somebody wrote it.

Two getsockopt calls, not a second libiptc handle: what is written after the look is not seen, so
the look has to be short. Counters are blanked; extensions of the kernel keep no other running
state in what they hand out.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING

from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from types import ModuleType

# IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; those of IPv6 have the same numbers.
_GET_INFO, _GET_ENTRIES = 64, 65
_DOMAIN = {Family.IP: socket.AF_INET, Family.IP6: socket.AF_INET6}
_LEVEL = {Family.IP: socket.IPPROTO_IP, Family.IP6: socket.IPPROTO_IPV6}


class _Info(ctypes.Structure):
    """The kernel's struct ipt_getinfo."""

    _fields_ = (
        ("name", ctypes.c_char * 32),
        ("valid_hooks", ctypes.c_uint),
        ("hook_entry", ctypes.c_uint * 5),
        ("underflow", ctypes.c_uint * 5),
        ("num_entries", ctypes.c_uint),
        ("size", ctypes.c_uint),
    )


class _Request(ctypes.Structure):
    """The kernel's struct ipt_get_entries; the entries follow it."""

    _fields_ = (
        ("name", ctypes.c_char * 32),
        ("size", ctypes.c_uint),
        ("entries", ctypes.c_uint64 * 0),
    )


class TableReader:
    """Reads one table; the layout of an entry is python-iptables'."""

    def __init__(self, iptc: ModuleType, family: Family, name: str) -> None:
        self._family = family
        self._name = name.encode()
        entry = iptc.ip4tc.ipt_entry if family is Family.IP else iptc.ip6tc.ip6t_entry
        self._next = entry.next_offset.offset
        self._counters = entry.counters.offset
        self._libc = ctypes.CDLL(None, use_errno=True)

    def read(self) -> bytes:
        """Return all entries with their counters blanked; EAGAIN if the size changes meanwhile."""
        with socket.socket(_DOMAIN[self._family], socket.SOCK_RAW, socket.IPPROTO_RAW) as kernel:
            info = _Info(name=self._name)
            self._ask(kernel, _GET_INFO, info, ctypes.sizeof(info))
            head = ctypes.sizeof(_Request)
            buffer = ctypes.create_string_buffer(head + info.size)
            request = _Request.from_buffer(buffer)
            request.name, request.size = self._name, info.size
            self._ask(kernel, _GET_ENTRIES, buffer, head + info.size)
        return self._blanked(bytearray(buffer)[head:])

    def _blanked(self, entries: bytearray) -> bytes:
        at, none = 0, bytes(16)
        while at < len(entries):
            counters = at + self._counters
            entries[counters : counters + 16] = none
            at += struct.unpack_from("=H", entries, at + self._next)[0]
        return bytes(entries)

    def _ask(
        self,
        kernel: socket.socket,
        option: int,
        buffer: ctypes.Array[ctypes.c_char] | _Info,
        size: int,
    ) -> None:
        # Python's own getsockopt takes no more than 1024 bytes.
        length = ctypes.c_uint32(size)
        level = _LEVEL[self._family]
        where = (kernel.fileno(), level, option, ctypes.byref(buffer), ctypes.byref(length))
        if self._libc.getsockopt(*where) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
