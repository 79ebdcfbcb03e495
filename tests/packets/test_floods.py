"""Floods, spoofed ones above all: caps hold, nothing is tracked, nobody is framed."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from lab import sip
from packets.cases import limited, trusting

if TYPE_CHECKING:
    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns


def many_sources(family: Family, count: int) -> list[str]:
    # IPv4 has too few documentation addresses; 198.18.0.0/15 is for such tests (RFC 2544).
    first = ip_address("2001:db8:1000::1" if family == "ip6" else "198.18.0.1")
    step = 1 << 64 if family == "ip6" else 1
    return [str(first + number * step) for number in range(count)]


def neighbours(family: Family, count: int) -> list[str]:
    """Return sources of one IPv4 /24 or one IPv6 /48, each in a /64 of its own."""
    if family == "ip":
        return [f"198.51.100.{number}" for number in range(2, 2 + count)]
    return [f"2001:db8:66:{number:x}::1" for number in range(2, 2 + count)]


def register(target: str, agent: str | None = None) -> bytes:
    return sip.request("REGISTER", source=target, destination=target, user_agent=agent)


def test_the_aggregate_cap_holds_against_thousands_of_sources(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(limited(aggregate="500/second"))
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    started = time.monotonic()
    lab.attacker.spoof_udp(many_sources(family, 5000), target, 5060, 5060, register(target))
    delivered = sink.settle()
    elapsed = time.monotonic() - started
    assert 500 <= delivered <= 500 + 500 * elapsed + 1
    # Each of the others came once: noted, should it come again.
    dropped = ("easing", "noted", "above", "overlooked")
    counts = [firewall.counted(f"aggregate.{each}", family) for each in dropped]
    assert sum(counts) == 5000 - delivered
    assert min(counts[:3]) > 0


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("scanner.options-udp", {}),
        ("scanner.ua.friendly-scanner", {}),
        ("rate.per-subnet", {"per_subnet": {"rate": "1/minute", "burst": 1}}),
        ("unknown.denied", {"unknown_sources": "denied"}),
    ],
)
def test_dropped_packets_are_not_tracked(
    rule: str, limits: dict[str, object], lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({**limited(**limits), **trusting()})
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    options = sip.request("OPTIONS", source=target, destination=target)
    agent = "friendly-scanner" if rule == "scanner.ua.friendly-scanner" else None
    payload = options if rule == "scanner.options-udp" else register(target, agent)
    sources = neighbours(family, 250)
    lab.attacker.spoof_udp(sources, target, 5060, 5060, payload)
    let_in = 1 if rule == "rate.per-subnet" else 0
    assert sink.settle() == let_in
    assert firewall.counted(rule, family) == 250 - let_in
    assert firewall.tracked() == let_in


def test_neighbours_share_a_ceiling(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load(limited(per_subnet={"rate": "10/second", "burst": 50}))
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    lab.attacker.spoof_udp(neighbours(family, 200), target, 5060, 5060, register(target))
    delivered = sink.settle()
    assert 50 <= delivered <= 54
    assert firewall.counted("rate.per-subnet", family) == 200 - delivered
    # Another network has a ceiling of its own.
    lab.attacker.spoof_udp(many_sources(family, 20), target, 5060, 5060, register(target))
    assert sink.settle() == delivered + 20


def test_addresses_of_one_ipv6_customer_share_a_ceiling(lab: Lab, firewall: Firewall) -> None:
    limits = limited(per_source={"rate": "10/second", "burst": 20})
    # On probation the network would have a trickle more.
    firewall.load({**limits, "bans": {"probation": False}})
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, "ip6")
    sources = [f"2001:db8:66::{number:x}" for number in range(0x1000, 0x1064)]
    lab.attacker.spoof_udp(sources, target, 5060, 5060, register(target))
    delivered = sink.settle()
    assert 20 <= delivered <= 24
    # The first one above the ceiling bans the whole network.
    assert firewall.counted("rate.per-source", "ip6") == 1
    assert firewall.counted("banned.drop", "ip6") == 100 - delivered - 1


def test_bans_are_written_at_a_bounded_rate(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load(limited(per_source={"rate": "1/minute", "burst": 1}))
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    sources = many_sources(family, 600)
    started = time.monotonic()
    lab.attacker.spoof_udp(sources * 2, target, 5060, 5060, register(target))
    assert sink.settle() == 600
    elapsed = time.monotonic() - started
    banned = firewall.counted("ban.add", family)
    assert 200 <= banned <= 200 + 100 * elapsed + 1
    # Those whose ban was not written are dropped all the same.
    assert firewall.counted("ban.drop", family) == 600
    assert firewall.contains("banned", sources[0])


def test_a_spoofed_scanner_bans_nobody(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.office, family)
    victim = lab.office.address(family)
    scanner = register(target, "friendly-scanner")
    lab.attacker.spoof_udp([victim] * 300, target, 5060, 5060, scanner)
    assert sink.settle() == 0
    assert firewall.counted("scanner.ua.friendly-scanner", family) == 300
    assert not firewall.contains("banned", victim)
    lab.office.send_udp(target, 5060, register(target), source_port=5060)
    assert sink.settle() == 1
    assert firewall.counted("rate.accept", family) == 1


def test_an_answer_opens_no_hole(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(5060, {"REGISTER": 401})
    target = lab.switch.address_for(lab.attacker, family)
    client = lab.attacker.udp_socket(5080)
    client.send(target, 5060, register(target))
    (answer,) = client.replies(timeout=5.0)
    assert answer.payload.startswith(b"SIP/2.0 401")
    client.send_many(target, 5060, [register(target, "friendly-scanner")] * 50)
    assert sink.settle() == 1
    assert firewall.counted("scanner.ua.friendly-scanner", family) == 50


def test_loopback_is_untouched(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"profile": "maximum"})
    sink = lab.switch.udp_sink(5060)
    options = sip.request("OPTIONS", source="192.0.2.1", destination="192.0.2.1")
    own = lab.switch.address_for(lab.carrier, family)
    for target in ("::1" if family == "ip6" else "127.0.0.1", own):
        lab.switch.send_udp(target, 5060, [options] * 200, source_port=5070)
    assert sink.settle() == 400
    assert firewall.counted("entry.loopback", family) == 400
    assert firewall.counted("replies.loopback", family) == 400


def test_other_ports_are_not_judged(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(9000)
    target = lab.switch.address_for(lab.attacker, family)
    lab.attacker.send_udp(target, 9000, [register(target, "friendly-scanner")] * 50)
    assert sink.settle() == 50
    assert firewall.counted("entry.udp", family) == 0
