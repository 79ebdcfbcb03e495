"""The kernel's filter takes exactly the packets of the ports, in both families."""

from __future__ import annotations

import struct

import pytest

from sipfw.kernel.state.sniffer import program_for

UDP, TCP, ICMP = 17, 6, 1
SETS_OF_PORTS = ([5060], [5060, 5061, 5080], list(range(5000, 5240)))


def run(program: list[tuple[int, int, int, int]], data: bytes) -> int:
    """Do what the kernel's filter machine does (Documentation/networking/filter.rst)."""
    accumulator = index = place = 0
    while True:
        code, if_true, if_not, number = program[place]
        place += 1
        match code:
            case 0x30 | 0x28 | 0x48:
                start = number + (index if code == 0x48 else 0)
                size = 1 if code == 0x30 else 2
                if start + size > len(data):
                    return 0
                accumulator = int.from_bytes(data[start : start + size], "big")
            case 0xB1:
                index = 4 * (data[number] & 0xF)
            case 0x54:
                accumulator &= number
            case 0x15:
                place += if_true if accumulator == number else if_not
            case 0x45:
                place += if_true if accumulator & number else if_not
            case 0x06:
                return number
            case _:
                raise AssertionError(f"opcode {code:#x}")


def ipv4(protocol: int, port: int, fragment: int = 0, options: int = 0) -> bytes:
    first = bytes([0x45 + options, 0, 0, 60, 0, 0]) + struct.pack("!H", fragment)
    rest = bytes([64, protocol, 0, 0]) + bytes(8 + 4 * options)
    return first + rest + struct.pack("!HH", 1, port) + bytes(30)


def ipv6(protocol: int, port: int) -> bytes:
    head = bytes([0x60, 0, 0, 0, 0, 20, protocol, 64]) + bytes(32)
    return head + struct.pack("!HH", 1, port) + bytes(30)


@pytest.mark.parametrize("ports", SETS_OF_PORTS, ids=len)
def test_the_filter(ports: list[int]) -> None:
    program = program_for(ports)
    assert all(0 <= skip <= 255 for line in program for skip in line[1:3])
    for port in (*ports, 99, 4999, 5240):
        wanted = port in ports
        for packet in (ipv4, ipv6):
            assert bool(run(program, packet(UDP, port))) is wanted
            assert bool(run(program, packet(TCP, port))) is wanted
            assert not run(program, packet(ICMP, port))
        assert bool(run(program, ipv4(UDP, port, options=3))) is wanted
        assert bool(run(program, ipv4(UDP, port, fragment=0x2000))) is wanted
        assert not run(program, ipv4(UDP, port, fragment=7))
    assert not run(program, b"\x00" * 60)
    assert not run(program, b"\x45")
