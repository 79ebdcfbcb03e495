"""Ranges of ports: their first, a middle and their last one are meant, and none beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from packets.cases import request, trusting

if TYPE_CHECKING:
    from lab import Family, Host, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

BEFORE, FIRST, MIDDLE, LAST, BEYOND = 5069, 5070, 5080, 5091, 5092
ALL = (BEFORE, FIRST, MIDDLE, LAST, BEYOND)
RANGE = f"{FIRST}-{LAST}"


def _listen(lab: Lab) -> None:
    for port in ALL:
        lab.switch.tcp_sink(port)


def _reached(lab: Lab, host: Host, family: Family, ports: tuple[int, ...]) -> list[int]:
    """Return the TCP ports that answer this host."""
    target = lab.switch.address_for(host, family)
    found = []
    for port in ports:
        try:
            host.tcp_connect(target, port, timeout=0.3).close()
        except TimeoutError:
            continue
        found.append(port)
    return found


def test_a_range_of_sip_ports_over_udp(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"signalling": {"udp": [5060, RANGE]}})
    own, target = lab.attacker.address(family), lab.switch.address_for(lab.attacker, family)
    sinks = {port: lab.switch.udp_sink(port) for port in ALL}
    for port in ALL:
        lab.attacker.send_udp(target, port, [request("OPTIONS")(own, target)], source_port=6000)
    assert {port: sink.settle() for port, sink in sinks.items()} == {
        BEFORE: 1,
        FIRST: 0,
        MIDDLE: 0,
        LAST: 0,
        BEYOND: 1,
    }
    assert firewall.counted("scanner.options-udp", family) == 3


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_range_of_sip_ports_over_tcp(
    transport: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    signalling = {"tcp": [], transport: RANGE}
    firewall.load({"signalling": signalling, "limits": {"unknown_sources": "denied"}})
    _listen(lab)
    assert _reached(lab, lab.attacker, family, ALL) == [BEFORE, BEYOND]


def test_a_range_of_web_ports(lab: Lab, firewall: Firewall, family: Family) -> None:
    networks = ["192.0.2.0/24", "2001:db8:2::/64"]
    firewall.load({"admin": {"networks": networks, "web_ports": [RANGE, 443]}})
    _listen(lab)
    assert _reached(lab, lab.office, family, ALL) == [FIRST, MIDDLE, LAST]
    assert _reached(lab, lab.attacker, family, (MIDDLE,)) == []


def test_a_range_of_ports_that_a_peer_sends_from(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(trusting(source_ports=RANGE))
    own, target = lab.carrier.address(family), lab.switch.address_for(lab.carrier, family)
    sink = lab.switch.udp_sink(5060)
    for port in ALL:
        lab.carrier.send_udp(target, 5060, [request("OPTIONS")(own, target)], source_port=port)
    assert sink.settle() == 3
    assert firewall.counted("trusted.ports", family) == 3
    assert firewall.counted("scanner.options-udp", family) == 2
