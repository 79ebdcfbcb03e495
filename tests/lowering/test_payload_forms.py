"""xt_bpf means what xt_u32 means, for every packet, and is within what old kernels take."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from byte_machines import bpf_matches, u32_matches
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered import ORIGIN, one_chain

from sipfw.lower.iptables import all_rules, lower
from sipfw.lower.xtables import Family
from sipfw.ruleset.match import HasPayload, L4Proto, MovedPayload, PayloadAt, StartsWithOneOf
from sipfw.ruleset.rule import Drop, Rule

if TYPE_CHECKING:
    from sipfw.lower.xtables import XMatch, XRule
    from sipfw.ruleset.match import Match

UDP, TCP = L4Proto.UDP, L4Proto.TCP
WORDS = (b"INVI", b"REGI", b"ACK ", b"\xff\xfe\xfd\xfc")
MANY = tuple(f"W{number:03}".encode() for number in range(60))
QUESTIONS: tuple[Match, ...] = (
    *(
        PayloadAt(proto, pattern, negate=negate)
        for proto in (UDP, TCP)
        for pattern in (b"ACK ", b"\xff\xfe\xfd\xfc", b"SIP/2.0 200 OK", b"OPTIONS sip:nm" * 2)
        for negate in (False, True)
    ),
    *(StartsWithOneOf(words, proto) for proto in (UDP, TCP) for words in (WORDS, MANY)),
    HasPayload(),
    MovedPayload(),
)


@cache
def rules(match: Match, family: Family, *, u32: bool) -> list[XRule]:
    plan = lower(one_chain(Rule("r", (match,), Drop(), "a rule", ORIGIN)), u32=u32)
    found = [(table.family, chain, rule) for table, chain, rule in all_rules(plan)]
    return [rule for each, chain, rule in found if each is family and chain == "CHAIN"]


def answer(found: list[XRule], packet: bytes) -> bool:
    return any(holds(rule.matches[-1], packet) for rule in found)


def holds(match: XMatch, packet: bytes) -> bool:
    (param,) = match.params
    (text,) = param.values
    if match.name == "bpf":
        assert not param.negate
        return bpf_matches(text, packet)
    assert match.name == "u32"
    return u32_matches(text, packet) != param.negate


PAYLOADS = st.one_of(
    st.binary(max_size=64),
    st.builds(
        lambda start, rest: start + rest,
        st.sampled_from([*WORDS, MANY[55], b"SIP/2.0 200 O", b"OPTIONS sip:nm" * 2]),
        st.binary(max_size=8),
    ),
)


@given(
    family=st.sampled_from(list(Family)),
    first=st.integers(0, 255),
    following=st.sampled_from([6, 17, 0, 44, 255]),
    offset=st.integers(0, 15),
    payload=PAYLOADS,
    cut=st.integers(0, 90),
)
@settings(max_examples=400)
def test_both_forms_answer_alike(
    *, family: Family, first: int, following: int, offset: int, payload: bytes, cut: int
) -> None:
    header = bytes([first, 0, 0, 0, 0, 0, following]).ljust(20 if family is Family.IP else 40)
    tcp = bytes(12) + bytes([offset << 4 | 3]).ljust(max(8, 4 * offset - 12), b"\1")
    for match in QUESTIONS:
        transport = bytes(8) if getattr(match, "proto", TCP) is UDP else tcp
        whole = header + transport + payload
        # Whatever arrives has its IP header.
        packet = whole[: max(len(header), len(whole) - cut)]
        answers = [answer(rules(match, family, u32=u32), packet) for u32 in (True, False)]
        assert answers[0] == answers[1], (match, packet)


@pytest.mark.parametrize("family", Family)
def test_a_moved_header_is_told_by_both(family: Family) -> None:
    plain = b"\x45".ljust(20) if family is Family.IP else bytes([0x60, *5 * [0], 17]).ljust(40)
    other = b"\x46".ljust(24) if family is Family.IP else bytes([0x60, *5 * [0], 44]).ljust(40)
    for u32 in (True, False):
        found = rules(MovedPayload(), family, u32=u32)
        assert [answer(found, packet) for packet in (plain, other)] == [False, True]


def test_a_program_fits_in_the_oldest_kernel() -> None:
    """XT_BPF_MAX_NUM_INSTR is 64; a longer list of words makes several rules."""
    found = rules(StartsWithOneOf(MANY, TCP), Family.IP6, u32=False)
    sizes = [int(rule.matches[-1].params[0].values[0].partition(",")[0]) for rule in found]
    assert sizes == [57, 17]


def test_the_text_is_what_iptables_prints() -> None:
    """A comparison of four bytes, at the offset that an IPv4 UDP payload has."""
    (rule,) = rules(PayloadAt(UDP, b"ACK "), Family.IP, u32=False)
    (param,) = rule.matches[-1].params
    assert (param.name, param.values) == (
        "bytecode",
        (f"4,32 0 0 28,21 0 1 {0x41434B20},6 0 0 1,6 0 0 0",),
    )
