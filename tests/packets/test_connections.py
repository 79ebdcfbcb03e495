"""TCP: how many connections, how often, and what of it may be searched."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from lab import sip
from lab.closing import CLOSED, end
from packets.cases import limited, trusting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

TLS_PORT = 5061
WS_PORT = 8088


def refused(lab: Lab, role: str, family: Family, port: int = 5060) -> bool:
    """Tell whether a SYN stays unanswered; an answered one leaves its connection open."""
    host = lab.hosts[role]
    try:
        target = lab.switch.address_for(host, family)
        host.tcp_connect(target, port, source=host.address(family), timeout=0.3)
    except TimeoutError:
        return True
    return False


def test_the_eleventh_connection_is_dropped(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.tcp_sink(5060)
    assert [refused(lab, "attacker", family) for _ in range(11)] == [False] * 10 + [True]
    sink.settle()
    assert sink.connections() == 10
    assert firewall.counted("connlimit.per-source", family) == 1
    # Somebody else is not held back by it.
    assert not refused(lab, "office", family)


@pytest.fixture
def neighbour(lab: Lab, family: Family) -> Iterator[str]:
    """A second address of the attacker, which would become its default source if it stayed."""
    address = "2001:db8:66:1::67" if family == "ip6" else "198.51.100.67"
    length = "48" if family == "ip6" else "24"
    where = [f"{address}/{length}", "dev", "eth0"]
    lab.attacker.run(["ip", "address", "add", *where])
    yield address
    lab.attacker.run(["ip", "address", "del", *where])


def test_neighbours_share_a_number_of_connections(
    neighbour: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(limited(connlimit={"per_source": None, "per_subnet": 5}))
    sink = lab.switch.tcp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    for _ in range(5):
        lab.attacker.tcp_connect(target, 5060, source=neighbour)
    assert refused(lab, "attacker", family)
    sink.settle()
    assert sink.connections() == 5
    assert firewall.counted("connlimit.per-subnet", family) == 1


@pytest.mark.parametrize("how", CLOSED)
def test_a_port_is_used_again_at_once(
    how: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    """Counted in raw, xt_connlimit would drop the SYN until the old connection is forgotten."""
    firewall.load()
    sink = lab.switch.tcp_sink(5060)
    source, target = lab.attacker.address(family), lab.switch.address_for(lab.attacker, family)
    end(lab, lab.attacker.tcp_connect(target, 5060, source=source, source_port=5060), how)
    lab.attacker.tcp_connect(target, 5060, source=source, source_port=5060, timeout=0.5)
    sink.settle()
    assert sink.connections() == 2
    assert firewall.counted("connlimit.per-source", family) == 0


@pytest.mark.parametrize("how", CLOSED)
def test_ports_that_are_used_again_count(
    how: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    """Counted in raw, a connection whose port was used before would not be in the number."""
    firewall.load(limited(connlimit={"per_source": 3}))
    lab.switch.tcp_sink(5060)
    source, target = lab.attacker.address(family), lab.switch.address_for(lab.attacker, family)
    ports = range(41001, 41006)
    for port in ports:
        end(lab, lab.attacker.tcp_connect(target, 5060, source=source, source_port=port), how)
    for port in ports[:3]:
        lab.attacker.tcp_connect(target, 5060, source=source, source_port=port, timeout=0.5)
    for port in ports[3:]:
        with pytest.raises(TimeoutError):
            lab.attacker.tcp_connect(target, 5060, source=source, source_port=port, timeout=0.3)
    assert firewall.counted("connlimit.per-source", family) == 2


@pytest.mark.parametrize("how", CLOSED)
def test_a_port_is_used_again_at_once_beside_another_connection(
    how: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    lab.switch.tcp_sink(5060)
    source, target = lab.attacker.address(family), lab.switch.address_for(lab.attacker, family)
    lab.attacker.tcp_connect(target, 5060, source=source)
    end(lab, lab.attacker.tcp_connect(target, 5060, source=source, source_port=5060), how)
    lab.attacker.tcp_connect(target, 5060, source=source, source_port=5060, timeout=0.5)


@pytest.mark.parametrize("how", CLOSED)
def test_a_learned_source_uses_its_port_again_at_once(
    how: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    firewall.add("learned", lab.attacker.address(family))
    lab.switch.tcp_sink(5060)
    source, target = lab.attacker.address(family), lab.switch.address_for(lab.attacker, family)
    end(lab, lab.attacker.tcp_connect(target, 5060, source=source, source_port=5060), how)
    lab.attacker.tcp_connect(target, 5060, source=source, source_port=5060, timeout=0.5)


def test_trusted_peers_hold_as_many_as_they_like(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(trusting())
    lab.switch.tcp_sink(5060)
    assert not any(refused(lab, "carrier", family) for _ in range(25))
    assert firewall.counted("trusted.accept", family) >= 25
    assert firewall.counted("connlimit.per-source", family) == 0


def test_learned_sources_hold_as_many_as_they_like(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    firewall.add("learned", lab.attacker.address(family))
    lab.switch.tcp_sink(5060)
    assert not any(refused(lab, "attacker", family) for _ in range(25))
    assert firewall.counted("streams.learned", family) >= 25
    assert firewall.counted("connlimit.per-source", family) == 0


@pytest.mark.parametrize("port", [5060, TLS_PORT])
@pytest.mark.parametrize("where", ["per_connection", "per_source"])
def test_what_strangers_say_on_connections_is_measured(
    where: str, port: int, lab: Lab, firewall: Firewall, family: Family
) -> None:
    volumes = {"per_connection": None, "per_source": None, where: 20_000}
    firewall.load({"switch": "asterisk", "limits": {"stream": volumes}})
    sink = lab.switch.tcp_sink(port)
    target = lab.switch.address_for(lab.attacker, family)
    connection = lab.attacker.tcp_connect(target, port)
    for _ in range(10):
        connection.send(bytes(1000))
    sink.settle()
    assert sum(len(each.payload) for each in sink.arrivals()) == 10_000
    with contextlib.suppress(ConnectionError):
        for _ in range(40):
            connection.send(bytes(1000))
    sink.settle()
    assert sum(len(each.payload) for each in sink.arrivals()) < 21_000
    prefix = "stream" if port == 5060 else "stream-encrypted"
    rule = f"{prefix}.{where.removeprefix('per_')}"
    assert firewall.counted(rule, family) >= 1
    # A reset, not a silence: the other end knows at once.
    with contextlib.suppress(ConnectionResetError):
        connection.received(timeout=1.0)
        assert connection.ended


def test_ciphertext_is_not_searched(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"switch": "asterisk"})
    sink = lab.switch.tcp_sink(TLS_PORT)
    target = lab.switch.address_for(lab.attacker, family)
    connection = lab.attacker.tcp_connect(target, TLS_PORT)
    payload = sip.request(
        "OPTIONS", source=target, destination=target, user_agent="friendly-scanner"
    )
    connection.send(payload)
    assert sink.wait(1)[0].payload == payload
    assert firewall.counted("stream-encrypted.pass", family) >= 1
    assert firewall.counted("scanner.ua.friendly-scanner", family) == 0
    assert firewall.counted("stream.ua.friendly-scanner", family) == 0


def test_a_banned_source_opens_no_connection(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"switch": "asterisk"})
    firewall.add("banned-tcp", lab.attacker.address(family))
    for port in (5060, TLS_PORT):
        lab.switch.tcp_sink(port)
        assert refused(lab, "attacker", family, port)
    assert firewall.counted("streams.drop", family) == 2


def test_a_ban_that_datagrams_wrote_touches_no_connection(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"switch": "asterisk"})
    firewall.add("banned", lab.attacker.address(family))
    for port in (5060, TLS_PORT):
        lab.switch.tcp_sink(port)
        assert not refused(lab, "attacker", family, port)


def test_a_clean_start_opens_no_hole(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.tcp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    connection = lab.attacker.tcp_connect(target, 5060)
    clean = sip.request("REGISTER", source=target, destination=target, transport="TCP")
    connection.send(clean)
    sink.wait(1)
    connection.send(clean.replace(b"Max-Forwards: 70", b"User-Agent: friendly-scanner"))
    assert sink.settle(quiet=0.3) == 1
    assert firewall.counted("stream.ua.friendly-scanner", family) >= 1


@pytest.fixture
def redirected(lab: Lab, family: Family) -> Iterator[int]:
    """Another port of the host, to which what comes to 5060 is redirected."""
    program = f"{'iptables' if family == 'ip' else 'ip6tables'}-nft"
    rule = ["PREROUTING", "-p", "tcp", "--dport", "5060", "-j", "REDIRECT", "--to-ports", "5070"]
    lab.switch.run([program, "-t", "nat", "-A", *rule])
    yield 5070
    # An nftables firewall takes all tables with it.
    lab.switch.run([program, "-t", "nat", "-D", *rule], check=False)


def test_redirected_connections_count(
    redirected: int, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(limited(connlimit={"per_source": 3}))
    sink = lab.switch.tcp_sink(redirected)
    assert [refused(lab, "attacker", family) for _ in range(5)] == [False] * 3 + [True] * 2
    sink.settle()
    assert sink.connections() == 3
    assert firewall.counted("connlimit.per-source", family) == 2


def test_refusals_over_websocket_end_the_connection(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    """A client's frames are masked, so a challenge counts as well: six times as many."""
    firewall.load({"signalling": {"ws": [WS_PORT]}, "learning": {"failures": 2}})
    sink = lab.switch.tcp_sink(WS_PORT, {"REGISTER": 401})
    target, own = lab.switch.address_for(lab.attacker, family), lab.attacker.address(family)
    connection = lab.attacker.tcp_connect(target, WS_PORT)
    register = sip.request("REGISTER", source=own, destination=target, transport="TCP")
    answered = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(20):
            connection.send(register)
            answered += connection.received(timeout=0.5).startswith(b"SIP/2.0 401")
    assert answered == 6 * 2
    assert sink.settle() == 6 * 2
    assert firewall.counted("stream-encrypted.shut", family) >= 1
    # A new connection is a new one.
    assert not refused(lab, "attacker", family, WS_PORT)


def test_the_prefix_of_a_source_is_the_policys(lab: Lab, firewall: Firewall) -> None:
    policy = limited(per_source={"rate": "1/minute", "burst": 5})
    limits = {**policy["limits"], "ipv6_prefix": 48}
    firewall.load({"limits": limits, "bans": {"probation": False}})
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, "ip6")
    payload = sip.request("REGISTER", source=target, destination=target)
    sources = [f"2001:db8:66:{number:x}::1" for number in range(2, 22)]
    lab.attacker.spoof_udp(sources, target, 5060, 5060, payload)
    assert sink.settle() == 5
    lab.attacker.spoof_udp(["2001:db8:67::1"], target, 5060, 5060, payload)
    assert sink.settle() == 6
