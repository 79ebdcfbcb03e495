"""What a guarded host needs of ICMP: it answers a ping, hears of a smaller MTU, finds neighbours.

Where these are lost, SIP over UDP still works in a laboratory, and long messages do not in the
field.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from lab import icmp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

GUARDED: Mapping[str, Any] = {"admin": {"networks": ["192.0.2.0/24", "2001:db8:2::/64"]}}
MTU = 1300
RTP = 12000
OTHER = 7000


@pytest.fixture
def guarded(firewall: Firewall) -> Firewall:
    firewall.load(GUARDED)
    return firewall


def test_a_stranger_may_ping(lab: Lab, guarded: Firewall, family: Family) -> None:
    target = lab.switch.address_for(lab.attacker, family)
    assert [lab.attacker.ping(target) for _ in range(3)] == [True] * 3
    assert guarded.counted("host.icmp-8" if family == "ip" else "host.icmp6-128", family) == 3


def test_the_host_itself_may_ping(lab: Lab, guarded: Firewall, family: Family) -> None:
    before = guarded.counted("host.established", family)
    assert lab.switch.ping(lab.attacker.address(family))
    assert guarded.counted("host.established", family) == before + 1


@pytest.mark.parametrize("kind", [13, 139])
def test_what_is_not_named_is_dropped(
    kind: int, lab: Lab, guarded: Firewall, family: Family
) -> None:
    """A question for the time (ICMP) and for a node's names (ICMPv6), by number in both."""
    before = guarded.counted("host.drop", family)
    lab.attacker.send_icmp(lab.switch.address_for(lab.attacker, family), kind, bytes(20))
    _until(lambda: guarded.counted("host.drop", family) > before)


def test_an_icmp_message_of_the_other_family_is_dropped(
    lab: Lab, guarded: Firewall, family: Family
) -> None:
    """An echo request of one family is an unknown number in the other."""
    before = guarded.counted("host.drop", family)
    foreign = 128 if family == "ip" else 8
    lab.attacker.send_icmp(lab.switch.address_for(lab.attacker, family), foreign, bytes(20))
    _until(lambda: guarded.counted("host.drop", family) > before)


@pytest.fixture
def _forgotten_mtu(lab: Lab) -> Iterator[None]:
    yield
    for version in ("-4", "-6"):
        lab.switch.run(["ip", version, "route", "flush", "cache"])


@pytest.mark.usefixtures("_forgotten_mtu")
def test_the_host_hears_of_a_smaller_mtu(lab: Lab, guarded: Firewall, family: Family) -> None:
    """Connection tracking knows the packet that the error is about."""
    _tell_too_big(lab, family, OTHER)
    _until(lambda: _route_mtu(lab, family) == MTU)
    assert guarded.counted("host.established", family) == 1


@pytest.mark.usefixtures("_forgotten_mtu")
def test_the_host_hears_of_a_smaller_mtu_for_what_is_not_tracked(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    """RTP beside connection tracking: to it the error is about nothing."""
    firewall.load({**GUARDED, "media": {"notrack": True, "ports": [f"{RTP}-{RTP + 99}"]}})
    _tell_too_big(lab, family, RTP)
    _until(lambda: _route_mtu(lab, family) == MTU)
    assert firewall.counted("host.icmp-3" if family == "ip" else "host.icmp6-2", family) == 1


def _tell_too_big(lab: Lab, family: Family, port: int) -> None:
    """Let the switch send a packet, and a router tell that it was too big."""
    own, target = lab.switch.address_for(lab.attacker, family), lab.attacker.address(family)
    assert _route_mtu(lab, family) is None
    # Without it the attacker would send an error of its own.
    lab.attacker.udp_sink(9000)
    lab.switch.udp_socket(port, source=own).send(target, 9000, b"x" * 1000)
    lab.attacker.too_big(own, MTU, icmp.quoted(own, port, target, 9000, b"x" * 1000)[:576])


def _route_mtu(lab: Lab, family: Family) -> int | None:
    shown = lab.switch.run(["ip", "route", "get", lab.attacker.address(family)]).stdout.split()
    return int(shown[shown.index("mtu") + 1]) if "mtu" in shown else None


def test_neighbours_find_the_host(lab: Lab, guarded: Firewall) -> None:
    _forget_neighbours(lab)
    assert lab.attacker.ping(lab.switch.address_for(lab.attacker, "ip6"))
    assert guarded.counted("host.icmp6-135", "ip6") >= 1


def test_the_host_finds_its_neighbours(lab: Lab, guarded: Firewall) -> None:
    _forget_neighbours(lab)
    sink = lab.attacker.udp_sink(9000)
    lab.switch.udp_socket(OTHER).send(lab.attacker.address6, 9000, b"found")
    assert [each.payload for each in sink.wait()] == [b"found"]
    assert guarded.counted("host.icmp6-136", "ip6") >= 1


def _forget_neighbours(lab: Lab) -> None:
    """Make both ends ask again; IPv4 asks by ARP, which no rule sees."""
    lab.switch.run(["ip", "-6", "neigh", "flush", "dev", "attacker"])
    lab.attacker.run(["ip", "-6", "neigh", "flush", "dev", "eth0"])


def _until(holds: Callable[[], bool], timeout: float = 2.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
