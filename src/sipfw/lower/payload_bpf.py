"""Bytes at fixed places, asked with `-m bpf`: the form for kernels without xt_u32.

Classic BPF, as linux/filter.h has it, in the text of `--bytecode`, which iptables takes and prints
since 1.4.20 and kernels run since 3.9. xt_bpf starts the program at the IP header in both families
(net/netfilter/xt_bpf.c). A load behind the end of the packet ends the program with 0, "no match",
so a negated question asks for the length first; xt_bpf itself has no `!`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower.payload import IP_HEADER, UDP_HEADER
from sipfw.lower.xtables import Family, XMatch, XParam
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Callable

# Opcodes: class | size | mode, or class | operation | source (linux/bpf_common.h).
_LOAD_WORD, _LOAD_WORD_BEHIND_X, _LOAD_BYTE, _LOAD_LENGTH = 0x20, 0x40, 0x30, 0x80
_AND, _SHIFT_RIGHT, _SUBTRACT, _TO_X = 0x54, 0x74, 0x14, 0x07
_IF_EQUAL, _IF_AT_LEAST, _IF_AT_LEAST_X = 0x15, 0x35, 0x3D
_RETURN = 0x06

# XT_BPF_MAX_NUM_INSTR is 64; reading a TCP header and two answers take seven.
_VALUES = 50


class BpfPayload:
    """What xt_bpf says in the place of xt_u32."""

    extension = "bpf"
    longest = 40

    def starts_with(
        self, proto: L4Proto, family: Family, pattern: bytes, *, negate: bool
    ) -> XMatch:
        """Compare four bytes at a time; a tail of fewer overlaps the word before it."""
        program = _Program()
        load = program.reach(proto, family, len(pattern) if negate else None)
        places = [*range(0, len(pattern) - 3, 4)]
        if len(pattern) % 4:
            places.append(len(pattern) - 4)
        for at in places:
            load(at)
            program.leave_unless(_IF_EQUAL, _number(pattern[at : at + 4]))
        return program.match(otherwise=negate)

    def first_word_is_one_of(
        self, proto: L4Proto, family: Family, words: tuple[bytes, ...]
    ) -> list[XMatch]:
        """Compare the first word with value after value."""
        found = []
        for at in range(0, len(words), _VALUES):
            program = _Program()
            program.reach(proto, family)(0)
            for word in words[at : at + _VALUES]:
                program.leave_if(_IF_EQUAL, _number(word))
            found.append(program.match(otherwise=True))
        return found

    def has_data(self, family: Family) -> XMatch:
        """Compare the packet's length with that of its headers."""
        program = _Program()
        program.reach(L4Proto.TCP, family, 1)
        return program.match(otherwise=False)

    def is_moved(self, family: Family) -> XMatch:
        """Look at the length of the IPv4 header, and at what IPv6 says comes next."""
        program = _Program()
        if family is Family.IP:
            program.add(_LOAD_BYTE, 0)
            program.add(_AND, 0xF)
            program.leave_if(_IF_EQUAL, 5)
        else:
            program.add(_LOAD_BYTE, 6)
            program.leave_if(_IF_EQUAL, 6)
            program.leave_if(_IF_EQUAL, 17)
        return program.match(otherwise=False)


class _Program:
    """Instructions with two ends: the answer of those who come through, and of those who leave."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int]] = []
        # Place of a jump -> whether it leaves where its comparison holds.
        self._leaves: dict[int, bool] = {}

    def add(self, opcode: int, value: int = 0) -> None:
        """Append an instruction that goes on with the next one."""
        self._code.append((opcode, value))

    def leave_if(self, opcode: int, value: int = 0) -> None:
        """Leave where the comparison holds."""
        self._leaves[len(self._code)] = True
        self.add(opcode, value)

    def leave_unless(self, opcode: int, value: int = 0) -> None:
        """Leave where the comparison does not hold."""
        self._leaves[len(self._code)] = False
        self.add(opcode, value)

    def reach(
        self, proto: L4Proto, family: Family, size: int | None = None
    ) -> Callable[[int], None]:
        """Return what loads the word at a byte of the payload.

        With `size`, packets with a shorter payload leave, also those that end in the headers.
        """
        start = IP_HEADER[family]
        if proto is L4Proto.UDP:
            start += UDP_HEADER
            if size is not None:
                self.add(_LOAD_LENGTH)
                self.leave_unless(_IF_AT_LEAST, start + size)
            return lambda at: self.add(_LOAD_WORD, start + at)
        if size is not None:
            self.add(_LOAD_LENGTH)
            self.leave_unless(_IF_AT_LEAST, start + max(size, 16))
        # A TCP header says its own length, in words, in the first four bits of its byte 12.
        self.add(_LOAD_WORD, start + 12)
        self.add(_SHIFT_RIGHT, 26)
        self.add(_AND, 0x3C)
        self.add(_TO_X)
        if size is not None:
            self.add(_LOAD_LENGTH)
            self.add(_SUBTRACT, start + size)
            self.leave_unless(_IF_AT_LEAST_X)
        return lambda at: self.add(_LOAD_WORD_BEHIND_X, start + at)

    def match(self, *, otherwise: bool) -> XMatch:
        """Finish; `otherwise` is the answer of those who leave."""
        lines = []
        for place, (opcode, value) in enumerate(self._code):
            yes = no = 0
            if place in self._leaves:
                # The answer of those who come through stands between.
                distance = len(self._code) - place
                yes, no = (distance, 0) if self._leaves[place] else (0, distance)
            lines.append(f"{opcode} {yes} {no} {value}")
        lines += [f"{_RETURN} 0 0 {int(not otherwise)}", f"{_RETURN} 0 0 {int(otherwise)}"]
        return XMatch("bpf", (XParam("bytecode", (",".join([str(len(lines)), *lines]),)),))


def _number(word: bytes) -> int:
    return int.from_bytes(word, "big")
