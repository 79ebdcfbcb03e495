"""Print the raw x_tables entries of some chains as JSON: `kernel_entries.py FAMILY TABLE CHAIN...`.

Listings hide what the kernel really compares (interface masks, the protocol flag), so the match
matrix looks at the bytes that getsockopt(IPT_SO_GET_ENTRIES) returns.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys

GET_INFO, GET_ENTRIES = 64, 65
# Family -> (socket family, level, size of struct ip(6)t_entry, offset of target_offset).
LAYOUT = {
    "ip": (socket.AF_INET, 0, 112, 88),
    "ip6": (socket.AF_INET6, 41, 168, 140),
}
# Offset of two interface names of 16 bytes; their two masks follow.
INTERFACES = {"ip": 16, "ip6": 64}


def ask(sock: socket.socket, level: int, option: int, data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    length = ctypes.c_uint32(len(data))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw[: length.value]


def read_table(family: str, table: str) -> bytes:
    domain, level, _, _ = LAYOUT[family]
    with socket.socket(domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        name = table.encode().ljust(32, b"\0")
        info = ask(sock, level, GET_INFO, name + bytes(52))
        size = struct.unpack_from("=I", info, 80)[0]
        return ask(sock, level, GET_ENTRIES, struct.pack("=32sI4x", name, size) + bytes(size))[40:]


def normal(entry: bytearray, offset: int, header: int, at: int, family: str) -> str:
    """Blank what depends on history or position, and bytes that the kernel does not compare."""
    for name in range(INTERFACES[family], INTERFACES[family] + 32):
        entry[name] &= entry[name + 32]
    target = struct.unpack_from("=H", entry, at)[0]
    entry[at - 4 : at] = bytes(4)
    entry[at + 4 : header] = bytes(header - at - 4)
    position = header
    while position < target:
        size = struct.unpack_from("=H", entry, position)[0]
        name = bytes(entry[position + 2 : position + 31]).partition(b"\0")[0]
        if name == b"recent" and family == "ip":
            # xt_recent_mtinfo_v1: 12 bytes of the 16-byte mask are not looked at in IPv4.
            end = position + 32 + 4 + 4 + 2 + 200 + 1
            end += -(end - position - 32) % 4
            entry[end + 4 : end + 16] = bytes(12)
        position += size
    if entry[target + 2] == 0:  # the standard target has an empty name
        verdict = struct.unpack_from("=i", entry, target + 32)[0]
        if verdict == offset + len(entry):
            entry[target + 32 : target + 36] = b"next"
    return entry.hex()


def chains(family: str, table: str) -> dict[str, list[str]]:
    blob = read_table(family, table)
    _, _, header, at = LAYOUT[family]
    result: dict[str, list[str]] = {}
    name, offset = "", 0
    while offset < len(blob):
        target, size = struct.unpack_from("=HH", blob, offset + at)
        entry = bytearray(blob[offset : offset + size])
        if entry[target + 2 : target + 8] == b"ERROR\0":
            name = bytes(entry[target + 32 :]).partition(b"\0")[0].decode()
            result[name] = []
        elif name:
            result[name].append(normal(entry, offset, header, at, family))
        offset += size
    # The last entry of a user chain is its implicit RETURN.
    return {key: entries[:-1] for key, entries in result.items()}


if __name__ == "__main__":
    found = chains(sys.argv[1], sys.argv[2])
    json.dump({name: found[name] for name in sys.argv[3:]}, sys.stdout)
