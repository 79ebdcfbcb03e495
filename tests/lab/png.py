"""Reads the pixels of a PNG of Chromium's: 8 bits, no palette, not interlaced (RFC 2083)."""

from __future__ import annotations

import struct
import zlib


def pixels(data: bytes) -> list[list[tuple[int, ...]]]:
    """Return the rows of a small picture; slow, about a million pixels a second."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("no PNG")
    width, height, depth, kind, _, _, interlaced = struct.unpack("!IIBBBBB", data[16:29])
    if depth != 8 or kind not in {2, 6} or interlaced:
        raise ValueError("another kind of PNG")
    channels = 3 if kind == 2 else 4
    raw, length = zlib.decompress(_body(data)), width * channels
    above = bytearray(length)
    rows = []
    for row in range(height):
        start = row * (length + 1)
        line = _unfiltered(raw[start], raw[start + 1 : start + 1 + length], above, channels)
        rows.append([tuple(line[i : i + 3]) for i in range(0, length, channels)])
        above = line
    return rows


def _body(data: bytes) -> bytes:
    position, found = 8, b""
    while position < len(data):
        (length,) = struct.unpack("!I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            found += data[position + 8 : position + 8 + length]
        position += length + 12
    return found


def _unfiltered(kind: int, line: bytes, above: bytearray, channels: int) -> bytearray:
    found = bytearray(line)
    for index, value in enumerate(line):
        left = found[index - channels] if index >= channels else 0
        up = above[index]
        corner = above[index - channels] if index >= channels else 0
        guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]
        found[index] = (value + guess) & 0xFF
    return found


def _paeth(left: int, up: int, corner: int) -> int:
    start = left + up - corner
    return min(
        (abs(start - left), 0, left), (abs(start - up), 1, up), (abs(start - corner), 2, corner)
    )[2]
