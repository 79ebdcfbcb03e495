"""What xt_u32 and xt_bpf do with a packet, after net/netfilter/xt_u32.c and net/core/filter.c."""

from __future__ import annotations

import re

_ENDS = -1


def u32_matches(test: str, packet: bytes) -> bool:
    """Answer `--u32 TEST` about a packet that starts with its IP header."""
    return all(_u32_holds(part, packet) for part in test.split("&&"))


def _u32_holds(part: str, packet: bytes) -> bool:
    location, _, values = part.partition("=")
    first, *rest = re.findall(r"(>>|&|@|^)(0x[0-9a-f]+|\d+)", location)
    at, place = 0, int(first[1], 0)
    word = _word(packet, place)
    for operator, text in rest:
        number = int(text, 0)
        if word == _ENDS:
            return False
        if operator == ">>":
            word >>= number
        elif operator == "&":
            word &= number
        else:
            at += word
            word = _word(packet, at + number)
    return word != _ENDS and any(_within(word, each) for each in values.split(","))


def _within(word: int, values: str) -> bool:
    low, _, high = values.partition(":")
    return int(low, 0) <= word <= int(high or low, 0)


def _word(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 4], "big") if at + 4 <= len(packet) else _ENDS


def bpf_matches(bytecode: str, packet: bytes) -> bool:
    """Answer `--bytecode BYTECODE`: a load behind the end answers no."""
    count, *lines = bytecode.split(",")
    code = [tuple(map(int, line.split())) for line in lines]
    assert len(code) == int(count) <= 64
    a = x = place = 0
    while True:
        opcode, yes, no, value = code[place]
        place += 1
        match opcode:
            case 0x20 | 0x40:
                a = _word(packet, value + (x if opcode == 0x40 else 0))
            case 0x30:
                a = packet[value] if value < len(packet) else _ENDS
            case 0x80:
                a = len(packet)
            case 0x54:
                a &= value
            case 0x74:
                a >>= value
            case 0x14:
                assert a >= value, "it would wrap"
                a -= value
            case 0x07:
                x = a
            case 0x15:
                place += yes if a == value else no
            case 0x35:
                place += yes if a >= value else no
            case 0x3D:
                place += yes if a >= x else no
            case 0x06:
                return value != 0
            case _:
                raise AssertionError(f"opcode {opcode:#x}")
        if a == _ENDS:
            return False
