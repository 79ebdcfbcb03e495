"""The laboratory does what packet tests rely on: delivers, answers, forges and cleans up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import CommandError, Family, Lab, sip, sweep, unavailable_reason
from lab.listeners import split_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

FAMILIES: tuple[Family, ...] = ("ip", "ip6")
both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(hosts=("carrier", "attacker", "office")) as built:
        yield built


@pytest.fixture(autouse=True)
def _free_ports(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").reset()


def namespaces_on_host() -> set[str]:
    return {path.name for path in Path("/run/netns").glob("sipfw-*")}


@both_families
def test_a_ping_is_answered_by_who_is_there(lab: Lab, family: Family) -> None:
    assert lab.attacker.ping(lab.switch.address_for(lab.attacker, family))
    assert not lab.attacker.ping(lab.attacker.link.address(99, family), timeout=0.2)


@both_families
@pytest.mark.parametrize("role", ["carrier", "attacker", "office"])
def test_datagrams_of_every_host_reach_the_switch_unchanged(
    lab: Lab, role: str, family: Family
) -> None:
    host = lab.hosts[role]
    target = lab.switch.address_for(host, family)
    sink = lab.switch.udp_sink(5060)
    host.send_udp(target, 5060, [b"one", bytes(range(256))], source_port=5062)
    first, second = sink.wait(2)
    assert (first.source, first.source_port, first.payload) == (host.address(family), 5062, b"one")
    assert first.destination == target
    assert second.payload == bytes(range(256))


def test_hosts_reach_each_other_only_with_forwarding(lab: Lab) -> None:
    sink = lab.carrier.udp_sink(7000)
    lab.attacker.send_udp(lab.carrier.address4, 7000, b"x")
    assert sink.settle() == 0
    with Lab(forward=True) as other:
        sink = other.carrier.udp_sink(7000)
        other.attacker.send_udp(other.carrier.address4, 7000, b"x")
        other.attacker.send_udp(other.carrier.address6, 7000, b"x")
        assert {each.source for each in sink.wait(2)} == {
            other.attacker.address4,
            other.attacker.address6,
        }


@both_families
def test_sink_answers_by_method_and_can_change_its_mind(lab: Lab, family: Family) -> None:
    host = lab.attacker
    target = lab.switch.address_for(host, family)
    sink = lab.switch.udp_sink(5060, {"REGISTER": 401, "INVITE": [100, 180, 200], "*": 200})
    client = host.udp_socket(source_port=5071)

    def statuses(method: str, expected: int) -> list[int | None]:
        message = sip.request(method, source=host.address(family), destination=target)
        client.send(target, 5060, message)
        replies = client.replies(timeout=5.0, count=expected)
        assert all(reply.source == target for reply in replies)
        parsed = [sip.parse(reply.payload) for reply in replies]
        sent = sip.parse(message)
        assert sent is not None
        for name in ("via", "from", "call-id", "cseq"):
            assert all(each and each.header(name) == sent.header(name) for each in parsed)
        return [each.status for each in parsed if each]

    assert statuses("REGISTER", 1) == [401]
    assert statuses("INVITE", 3) == [100, 180, 200]
    sink.behave({"*": 403})
    assert statuses("OPTIONS", 1) == [403]
    sink.behave(None)
    client.send(target, 5060, sip.request("OPTIONS", source=target, destination=target))
    assert client.replies(timeout=0.05) == []
    assert sink.kinds() == {"REGISTER": 1, "INVITE": 1, "OPTIONS": 2}


def test_registrar_challenges_accepts_refuses_and_does_not_know(lab: Lab) -> None:
    target = lab.switch.address_for(lab.office)
    good = {"mode": "registrar", "good": ['response="right"'], "users": ["1000"]}
    sink = lab.switch.udp_sink(5060, good)

    def status(user: str, credentials: str | None) -> int | None:
        headers = [("Authorization", credentials)] if credentials else []
        message = sip.request(
            "REGISTER",
            source=lab.office.address4,
            destination=target,
            user=user,
            extra_headers=headers,
        )
        (reply,) = lab.office.send_udp(target, 5060, message, source_port=5072, replies=5.0)
        parsed = sip.parse(reply.payload)
        assert parsed is not None
        assert (parsed.header("www-authenticate") is not None) == (parsed.status == 401)
        return parsed.status

    assert status("1000", None) == 401
    assert status("1000", 'Digest response="wrong"') == 403
    assert status("1000", 'Digest response="right"') == 200
    assert status("2000", None) == 404
    assert {each.source_port for each in sink.arrivals()} == {5072}


@both_families
def test_the_kernel_fragments_a_large_datagram(lab: Lab, family: Family) -> None:
    target = lab.switch.address_for(lab.carrier, family)
    payload = os.urandom(3000)
    sink = lab.switch.udp_sink(5060)
    before = reassembled(lab, family)
    lab.carrier.send_udp(target, 5060, payload)
    assert sink.wait(1)[0].payload == payload
    assert reassembled(lab, family) == before + 1


@both_families
def test_fragments_can_be_cut_at_a_chosen_byte(lab: Lab, family: Family) -> None:
    target = lab.switch.address_for(lab.attacker, family)
    payload = sip.request(
        "OPTIONS", source="198.51.100.66", destination=target, user_agent="friendly-scanner"
    )
    inside = payload.index(b"friendly-scanner") + 8
    split = inside - inside % 8
    sink = lab.switch.udp_sink(5060)
    before = reassembled(lab, family)
    assert lab.attacker.send_fragments(target, 5080, 5060, payload, split) == 2
    (arrival,) = sink.wait(1)
    assert (arrival.source, arrival.source_port) == (lab.attacker.address(family), 5080)
    assert arrival.payload == payload
    assert reassembled(lab, family) == before + 1
    assert lab.attacker.send_fragments(target, 5080, 5060, payload, [16, 64, 128]) == 4
    assert sink.wait(2)[1].payload == payload
    with pytest.raises(ValueError, match="multiples of 8"):
        lab.attacker.send_fragments(target, 5080, 5060, payload, 13)


def reassembled(lab: Lab, family: Family) -> int:
    """Return how many datagrams the switch's kernel put together from fragments."""
    return lab.switch.counters()["Ip6ReasmOKs" if family == "ip6" else "IpReasmOKs"]


@both_families
def test_spoofed_floods_arrive_whole_and_fast(lab: Lab, family: Family) -> None:
    target = lab.switch.address_for(lab.attacker, family)
    first = ip_address("2001:db8:77::1" if family == "ip6" else "198.18.0.1")
    sources = [str(first + number) for number in range(20_000)]
    payload = sip.request("REGISTER", source="198.18.0.1", destination=target)
    sink = lab.switch.udp_sink(5060)
    started = time.monotonic()
    assert lab.attacker.spoof_udp(sources, target, [5060, 5061], 5060, payload) == 20_000
    assert time.monotonic() - started < 5
    assert sink.settle() == 20_000
    arrivals = sink.arrivals()
    assert {each.source for each in arrivals} == set(sources)
    assert {each.source_port for each in arrivals} == {5060, 5061}
    assert {each.payload for each in arrivals} == {payload}


def test_spoofing_keeps_to_the_rate(lab: Lab) -> None:
    target = lab.switch.address_for(lab.attacker)
    sink = lab.switch.udp_sink(5060)
    started = time.monotonic()
    lab.attacker.spoof_udp([lab.carrier.address4] * 100, target, 5060, 5060, b"x", pps=500)
    assert 0.15 < time.monotonic() - started < 1.0
    assert {each.source for each in sink.wait(100)} == {lab.carrier.address4}


@both_families
def test_the_answer_goes_to_the_framed_source(lab: Lab, family: Family) -> None:
    target = lab.switch.address_for(lab.attacker, family)
    framed = lab.carrier.address(family)
    victim = lab.carrier.udp_sink(5060)
    sink = lab.switch.udp_sink(5060, "echo-status")
    payload = sip.request("OPTIONS", source=framed, destination=target)
    nowhere = "2001:db8:99::1" if family == "ip6" else "198.18.0.1"
    lab.attacker.spoof_udp([nowhere, framed], target, 5060, 5060, payload)
    (answer,) = victim.wait(1)
    assert (answer.source, answer.source_port) == (target, 5060)
    assert answer.payload.startswith(b"SIP/2.0 200 OK")
    assert sink.count() == 2


@both_families
def test_tcp_carries_several_messages_in_any_segments(lab: Lab, family: Family) -> None:
    target = lab.switch.address_for(lab.office, family)
    sink = lab.switch.tcp_sink(5060, "echo-status")
    message = sip.request(
        "MESSAGE", source="192.0.2.100", destination=target, transport="TCP", body=b"hello"
    )
    connection = lab.office.tcp_connect(target, 5060)
    connection.send(b"\r\n\r\n" + message + message[:40])
    first = connection.received(timeout=5.0)
    assert first.count(b"SIP/2.0 200 OK") == 1
    connection.send(message[40:])
    assert connection.received(timeout=5.0).count(b"SIP/2.0 200 OK") == 1
    assert connection.received(timeout=0.05) == b""
    segments = sink.wait(2)
    assert b"".join(each.payload for each in segments) == b"\r\n\r\n" + message * 2
    assert {(each.source, each.connection) for each in segments} == {
        (lab.office.address(family), 1)
    }
    connection.close()
    lab.office.tcp_connect(target, 5060).close()
    sink.settle()
    assert sink.connections() == 2


def test_thousands_of_connections_and_client_ports_can_be_held(lab: Lab) -> None:
    target = lab.switch.address_for(lab.attacker)
    sink = lab.switch.tcp_sink(5060, "echo-status")
    held = [lab.attacker.tcp_connect(target, 5060, timeout=5.0) for _ in range(1200)]
    sink.settle()
    assert sink.connections() == 1200
    held[-1].send(sip.request("OPTIONS", source=target, destination=target, transport="TCP"))
    assert held[-1].received(timeout=5.0).startswith(b"SIP/2.0 200 OK")


def test_a_refused_a_silent_and_an_ended_connection_differ(lab: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        lab.attacker.tcp_connect(lab.switch.address_for(lab.attacker), 5999)
    with pytest.raises(TimeoutError):
        lab.attacker.tcp_connect("203.0.113.10", 5060, timeout=0.1)
    sink = lab.switch.tcp_sink(5060)
    connection = lab.attacker.tcp_connect(lab.switch.address_for(lab.attacker), 5060)
    connection.send(b"x")
    sink.wait(1)
    sink.close()
    assert connection.received(timeout=5.0) == b""
    assert connection.ended


def test_split_messages_leaves_an_incomplete_body() -> None:
    whole = sip.request("INVITE", source="192.0.2.1", destination="192.0.2.2", body=b"12345")
    assert split_messages(whole + b"\r\n\r\n" + whole[:-1]) == ([whole], whole[:-1])


def test_waiting_for_what_does_not_come_says_how_much_came(lab: Lab) -> None:
    sink = lab.switch.udp_sink(5060)
    lab.carrier.send_udp(lab.switch.address_for(lab.carrier), 5060, b"x")
    with pytest.raises(TimeoutError, match="1 of 2 arrived at port 5060"):
        sink.wait(2, timeout=0.1)
    sink.clear()
    assert sink.settle() == 0


def test_a_port_is_free_again_after_close(lab: Lab) -> None:
    lab.switch.udp_sink(5060, keep=1).close()
    sink = lab.switch.udp_sink(5060, keep=1)
    with pytest.raises(OSError, match="in use"):
        lab.switch.tcp_sink(7001) and lab.switch.tcp_sink(7001)
    lab.carrier.send_udp(lab.switch.address_for(lab.carrier), 5060, [b"a", b"b"])
    assert [each.payload for each in sink.wait(2)] == [b"a"]
    assert sink.count() == 2


def test_an_added_address_is_a_source(lab: Lab) -> None:
    lab.attacker.add_address("198.51.100.67")
    lab.attacker.add_address("2001:db8:66::67")
    sink = lab.switch.udp_sink(5060)
    for family, source in (("ip", "198.51.100.67"), ("ip6", "2001:db8:66::67")):
        target = lab.switch.address_for(lab.attacker, "ip6" if family == "ip6" else "ip")
        lab.attacker.send_udp(target, 5060, b"x", source=source)
    assert [each.source for each in sink.wait(2)] == ["198.51.100.67", "2001:db8:66::67"]


def test_programs_run_inside_and_failures_carry_their_output(lab: Lab) -> None:
    assert "carrier" in lab.switch.run(["ip", "-br", "link"]).stdout
    assert lab.switch.run(["cat"], input="text").stdout == "text"
    assert lab.switch.run(["env"], env={"LAB": "yes"}).stdout.count("LAB=yes") == 1
    assert lab.switch.run(["false"], check=False).returncode == 1
    with pytest.raises(CommandError, match="No such file"):
        lab.switch.run(["cat", "/nonexistent"])
    assert lab.switch.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "0\n"


def test_everything_is_gone_after_an_interrupt() -> None:
    links = subprocess.run(["ip", "link"], capture_output=True, check=True).stdout
    broken = Lab()
    names = {node.namespace for node in broken.nodes}

    def interrupted() -> None:
        with broken:
            assert names <= namespaces_on_host()
            broken.switch.udp_sink(5060)
            sleepers.append(broken.switch.popen(["sleep", "60"]))
            raise KeyboardInterrupt

    sleepers: list[subprocess.Popen[str]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not names & namespaces_on_host()
    assert sleepers[0].poll() is not None
    assert subprocess.run(["ip", "link"], capture_output=True, check=True).stdout == links


def test_sweep_removes_what_a_killed_process_left() -> None:
    program = (
        "from lab import Lab\n"
        "with Lab(hosts=('carrier',)) as lab:\n"
        "    lab.switch.popen(['sleep', '60'])\n"
        "    print(lab.switch.namespace, flush=True)\n"
        "    input()\n"
    )
    tests = str(Path(__file__).resolve().parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert name in namespaces_on_host()
        assert name not in sweep()
        child.kill()
    # Another worker's lab may sweep first, so only the result is certain.
    sweep()
    assert name not in namespaces_on_host()
