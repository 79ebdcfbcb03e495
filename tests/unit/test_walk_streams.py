"""What strangers say over TCP, and what a whole /64 has earned, asked of the walk."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState
from sipfw.simulate.evaluate import OUTGOING, evaluate
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import Limit, LiveState
from sipfw.simulate.trace import Verdict

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset
    from sipfw.simulate.trace import Trace

SOURCE, OWN = IPv4Address("198.51.100.7"), IPv4Address("192.0.2.1")
SEGMENT = Packet(
    SOURCE,
    OWN,
    IpProto.TCP,
    50000,
    5060,
    flags=frozenset({TcpFlag.ACK}),
    in_interface="eth0",
    state=CtState.ESTABLISHED,
)
MESSAGES = Path(__file__).parents[1] / "data" / "attack_messages"
PORTS = "signalling: {udp: [5060], tcp: [5060], tls: [5061]}\n"
LET_IN = PORTS + "scanners: {block_options: false}\n"
BEHIND = "signalling: {udp: [5060], tcp: [5060], behind: [docker0]}\n"

REGISTER = b"REGISTER sip:a@192.0.2.1 SIP/2.0\r\nCSeq: 1 REGISTER\r\n"
LOGIN = REGISTER + b'Authorization: Digest username="a"\r\n\r\n'
OPTIONS = b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\n\r\n"
ANSWER = b"SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n\r\n"
TOOL = REGISTER + b"User-Agent: friendly-scanner\r\n\r\n"


def compiled(tmp_path: Path, text: str = PORTS) -> Ruleset:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return compile_policy(load(Request(path)))


def known(ruleset: Ruleset, *sets: str, source: IPv4Address | IPv6Address = SOURCE) -> LiveState:
    dynamic = [item.name for item in ruleset.sets if item.dynamic]
    assert set(sets) <= set(dynamic)
    return LiveState({name: {source: 60} if name in sets else {} for name in dynamic})


def said(ruleset: Ruleset, payload: bytes, *sets: str) -> Trace:
    return evaluate(ruleset, replace(SEGMENT, payload=payload), known(ruleset, *sets))


def decider(trace: Trace) -> str | None:
    return trace.decider.id if trace.decider is not None else None


@pytest.mark.parametrize(
    ("payload", "sets", "verdict", "rule"),
    [
        (OPTIONS, (), Verdict.RESET, "scanner.options-tcp"),
        (ANSWER, (), Verdict.RESET, "stream-data.answer"),
        (TOOL, (), Verdict.RESET, "stream-tool.end"),
        (TOOL, ("learned",), Verdict.RESET, "stream-tool.end"),
        (LOGIN + TOOL, ("registered",), Verdict.RESET, "stream-tool.end"),
        (LOGIN, ("shut",), Verdict.RESET, "stream.shut"),
        (ANSWER, ("asked",), Verdict.PASSED, "stream-request.pass"),
        (OPTIONS, ("learned",), Verdict.PASSED, "stream-request.pass"),
        (OPTIONS, ("callers",), Verdict.PASSED, "stream-request.pass"),
        (OPTIONS, ("registered",), Verdict.PASSED, "stream-registered.pass"),
        (REGISTER, (), Verdict.PASSED, "stream-request.pass"),
        (LOGIN, (), Verdict.PASSED, "stream-login.pass"),
        (LOGIN, ("banned",), Verdict.PASSED, "stream-login.pass"),
        (LOGIN, ("banned-tcp",), Verdict.DROPPED, "streams.drop"),
        (LOGIN, ("banned-tcp", "registered"), Verdict.PASSED, "stream-login.pass"),
    ],
)
def test_what_becomes_of_a_segment(
    tmp_path: Path, payload: bytes, sets: tuple[str, ...], verdict: Verdict, rule: str
) -> None:
    trace = said(compiled(tmp_path), payload, *sets)
    assert (trace.verdict, decider(trace)) == (verdict, rule)


@pytest.mark.parametrize("payload", [OPTIONS, ANSWER])
def test_where_no_reset_can_be_sent_nothing_wedges_a_stream(tmp_path: Path, payload: bytes) -> None:
    trace = said(compiled(tmp_path, BEHIND), payload)
    assert trace.verdict is Verdict.PASSED
    assert said(compiled(tmp_path, BEHIND), TOOL).verdict is Verdict.DROPPED
    assert "adds 198.51.100.7 to banned-tcp" in said(compiled(tmp_path, BEHIND), TOOL).changes


@pytest.mark.parametrize(("text", "rule"), [
    (PORTS, "scanner.options-tcp"),
    (LET_IN, "stream.line.nmap-version-probe"),
])  # fmt: skip
def test_nmap_is_found_over_tcp_also_where_options_are_let_in(
    tmp_path: Path, text: str, rule: str
) -> None:
    probe = (MESSAGES / "nmap-version-probe-tcp.sip").read_bytes()
    trace = said(compiled(tmp_path, text), probe)
    assert (trace.verdict, decider(trace)) == (Verdict.RESET, rule)
    datagram = replace(SEGMENT, protocol=IpProto.UDP, payload=probe, state=CtState.NEW)
    let_in = compiled(tmp_path, LET_IN)
    over_udp = evaluate(let_in, datagram, known(let_in))
    assert decider(over_udp) == "scanner.line.nmap-version-probe"
    other = said(let_in, OPTIONS)
    assert other.verdict is Verdict.PASSED


def test_a_tool_on_a_stream_ends_what_was_learned(tmp_path: Path) -> None:
    ruleset = compiled(tmp_path)
    trace = said(ruleset, LOGIN + TOOL, "registered", "learned")
    assert {each for each in trace.changes if each.startswith("takes")} == {
        "takes 198.51.100.7 out of registered",
        "takes 198.51.100.7 out of learned",
    }
    datagram = replace(SEGMENT, protocol=IpProto.UDP, payload=LOGIN + TOOL, state=CtState.NEW)
    forged = evaluate(ruleset, datagram, known(ruleset, "registered", "learned"))
    assert forged.dropped
    assert forged.changes == ()


@pytest.mark.parametrize(
    ("payload", "waits"),
    [
        (REGISTER, True),
        (LOGIN, True),
        (LOGIN + OPTIONS, False),
        (LOGIN + b"INVITE sip:echo@192.0.2.1 SIP/2.0\r\n", False),
        (b"SUBSCRIBE sip:a@192.0.2.1 SIP/2.0\r\n\r\n" + REGISTER, False),
        (b"Call-ID: 1 REGISTER\r\n\r\n", False),
    ],
)
def test_what_cannot_be_told_apart_on_a_stream_teaches_nothing(
    tmp_path: Path, payload: bytes, *, waits: bool
) -> None:
    changes = said(compiled(tmp_path), payload).changes
    assert ("adds 198.51.100.7 to pending" in changes) is waits
    assert ("takes 198.51.100.7 out of pending" in changes) is not waits


@pytest.mark.parametrize("port", [5060, 5061])
@pytest.mark.parametrize("rule", ["connection", "source"])
def test_a_stranger_who_says_too_much_gets_a_reset(tmp_path: Path, port: int, rule: str) -> None:
    ruleset = compiled(tmp_path)
    prefix = "stream" if port == 5060 else "stream-encrypted"
    packet = replace(SEGMENT, destination_port=port, payload=LOGIN)
    live = replace(known(ruleset), limits={f"{prefix}.{rule}": Limit.EXCEEDED})
    trace = evaluate(ruleset, packet, live)
    assert (trace.verdict, decider(trace)) == (Verdict.RESET, f"{prefix}.{rule}")


@pytest.mark.parametrize("sets", [(), ("learned",), ("asked",), ("banned-tcp",)])
def test_a_connection_of_the_switch_itself_is_a_strangers_stream(
    tmp_path: Path, sets: tuple[str, ...]
) -> None:
    ruleset = compiled(tmp_path)
    packet = replace(SEGMENT, source_port=5070, destination_port=40001, payload=TOOL)
    assert evaluate(ruleset, packet, known(ruleset, *sets)).verdict is Verdict.PASSED
    noted = evaluate(ruleset, packet, known(ruleset, "outward", *sets))
    assert noted.verdict is Verdict.RESET
    assert noted.decider is not None
    assert noted.decider.id == ("stream-banned.end" if "banned-tcp" in sets else "stream-tool.end")


@pytest.mark.parametrize("said_first", [b"SIP/2.0 401 Unauthorized\r\n", b"OPTIONS sip:x\r\n"])
def test_it_is_found_by_what_the_switch_says(tmp_path: Path, said_first: bytes) -> None:
    ruleset = compiled(tmp_path)
    packet = replace(
        SEGMENT, source=OWN, destination=SOURCE, source_port=40001, destination_port=5070
    )

    def written(payload: bytes) -> tuple[str, ...]:
        sent = replace(packet, in_interface=None, out_interface="eth0", payload=payload)
        return evaluate(ruleset, sent, known(ruleset), path=OUTGOING).changes

    assert "adds 198.51.100.7 to outward" in written(said_first)
    assert written(b"INFO {server}\r\n") == ()
    assert written(b"GET / HTTP/1.1\r\n") == ()


NEAR, SAME, OTHER = (IPv6Address(f"2001:db8:66:{end}") for end in (":1", "0:ffff::9", "1::1"))


@pytest.mark.parametrize(
    ("name", "rule"), [("barred", "rate.barred"), ("banned", "guesses.source")]
)
def test_a_guesser_who_moves_within_his_prefix_is_one_source(
    tmp_path: Path, name: str, rule: str
) -> None:
    """The kernel lists the first address of the prefix, whoever of it was the first."""
    ruleset = compiled(tmp_path)
    live = replace(
        known(ruleset, name, source=IPv6Address("2001:db8:66::")),
        limits={"guesses.source": Limit.EXCEEDED},
    )

    def guess(source: IPv6Address) -> list[str]:
        packet = Packet(
            source, IPv6Address("2001:db8:5::1"), IpProto.UDP, 5070, 5060, payload=LOGIN
        )
        trace = evaluate(ruleset, packet, live)
        assert trace.dropped is (rule in {step.rule_id for step in trace.steps if step.matched})
        return [step.rule_id for step in trace.steps if step.matched]

    assert rule not in guess(OTHER)
    assert rule in guess(SAME)
    assert rule in guess(NEAR)
