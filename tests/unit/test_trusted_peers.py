"""A trusted peer meets nothing: no limit, no ban, no text, over any transport."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load, shipped_profiles
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import Limit, LiveState
from sipfw.simulate.trace import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

POLICY = """\
profile: {profile}
admin: {{networks: [192.0.2.0/28]}}
signalling: {{udp: [5060], tcp: [5060], tls: [5061], ws: [8080]}}
trusted_peers:
  - {{name: plain, signalling: [203.0.113.10, '2001:db8:5::/64'], tier: large}}
  - {{name: ports, signalling: [203.0.113.40], source_ports: [5070]}}
"""
SCAN = b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nUser-Agent: sipvicious\r\n\r\n"
ANSWER = b"SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n\r\n"
LOGIN = b"REGISTER sip:a SIP/2.0\r\nAuthorization: Digest\r\n\r\n"
PACKETS = [
    *((IpProto.UDP, 5060, text) for text in (SCAN, ANSWER, LOGIN, b"INVITE 1 REGISTER", b"")),
    *((IpProto.TCP, 5060, text) for text in (SCAN, ANSWER, LOGIN, b"")),
    (IpProto.TCP, 5061, b"\x16\x03\x01"),
    (IpProto.TCP, 8080, b"GET / HTTP/1.1\r\n"),
]
STATES = [(CtState.NEW, TcpFlag.SYN), (CtState.ESTABLISHED, TcpFlag.ACK)]


@pytest.fixture(params=shipped_profiles(), scope="module")
def ruleset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ruleset:
    file: Path = tmp_path_factory.mktemp("peers") / "policy.yaml"
    file.write_text(POLICY.format(profile=request.param))
    return compile_policy(load(Request(file)))


@pytest.mark.parametrize("source", ["203.0.113.10", "2001:db8:5::9", "203.0.113.40"])
@pytest.mark.parametrize("sent", PACKETS, ids=lambda sent: f"{sent[0]}-{sent[1]}-{sent[2]!r:.12}")
def test_a_peer_meets_nothing(
    ruleset: Ruleset, source: str, sent: tuple[IpProto, int, bytes]
) -> None:
    protocol, port, payload = sent
    peer = ip_address(source)
    own = ip_address("192.0.2.1" if peer.version == 4 else "2001:db8::1")
    packet = Packet(peer, own, protocol, 5070, port, payload=payload, in_interface="eth0")
    # Everything that can be known of a source speaks against it, and it is above every limit.
    live = LiveState({item.name: {peer: 60} for item in ruleset.sets if item.dynamic})
    for state, flag in STATES:
        flags = frozenset({flag}) if protocol is IpProto.TCP else frozenset()
        trace = evaluate(
            ruleset, replace(packet, state=state, flags=flags), live, assume=Limit.EXCEEDED
        )
        assert trace.verdict is Verdict.PASSED
        assert trace.changes == ()
    # Of strangers, IP options and extension headers are dropped.
    assert not evaluate(ruleset, replace(packet, moved=True), live).dropped
