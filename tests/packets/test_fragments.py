"""Fragmented datagrams: seen whole by the payload rules, and never dropped for being fragments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sip
from packets.cases import trusting

if TYPE_CHECKING:
    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

MARK = "friendly-scanner"
# Three fragments, each below the MTU of 1500.
CUTS = [1400, 2800]
SIZE = 3000


def large_invite(source: str, destination: str, agent: str, position: int) -> bytes:
    """Return an INVITE of `SIZE` bytes whose User-Agent text starts at byte `position`."""

    def build(before: int, behind: int) -> bytes:
        return sip.request(
            "INVITE",
            source=source,
            destination=destination,
            extra_headers=[("X-Before", "b" * before), ("User-Agent", agent)],
            body=b"x" * behind,
        )

    before = position - build(0, 1000).index(f"User-Agent: {agent}".encode()) - len("User-Agent: ")
    # The length of the body shows in Content-Length, which has four digits here.
    return build(before, 1000 + SIZE - len(build(before, 1000)))


def test_a_signature_across_the_boundary_is_found_at_every_position(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    own = lab.attacker.address(family)
    positions = [CUTS[0] - inside for inside in range(1, len(MARK))]
    for position in positions:
        message = large_invite(own, target, MARK, position)
        assert message[position : position + len(MARK)] == MARK.encode()
        assert len(message) == SIZE
        assert lab.attacker.send_fragments(target, 5080, 5060, message, CUTS) == 3
    assert sink.settle() == 0
    assert firewall.counted("scanner.ua.friendly-scanner", family) == len(positions) == 15


@pytest.mark.parametrize(
    ("role", "rule"), [("carrier", "trusted.accept"), ("attacker", "rate.accept")]
)
def test_a_legitimate_large_invite_arrives_whole(
    role: str, rule: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(trusting())
    sink = lab.switch.udp_sink(5060)
    host = lab.hosts[role]
    target = lab.switch.address_for(host, family)
    message = large_invite(host.address(family), target, "Ordinary Phone", CUTS[0] - 5)
    # Once in fragments of our choice, once as the sender's kernel cuts it.
    host.send_fragments(target, 5080, 5060, message, CUTS)
    host.send_udp(target, 5060, message)
    sink.settle()
    assert [each.payload for each in sink.arrivals()] == [message, message]
    assert firewall.counted(rule, family) == 2


def test_the_rules_see_reassembled_packets(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    lab.switch.udp_sink(5060)
    target = lab.switch.address_for(lab.attacker, family)
    message = large_invite(lab.attacker.address(family), target, "Ordinary Phone", 600)
    lab.attacker.send_fragments(target, 5080, 5060, message, CUTS)
    header = 40 if family == "ip6" else 20
    counts = firewall.counts(family)
    # A rule that sees single fragments counts a third of the bytes, or three packets.
    # Only iptables counts at the hook; it has a counter in every rule.
    hook = () if firewall.own_table else ("hook.raw.prerouting",)
    for rule in (*hook, "entry.udp", "rate.accept"):
        assert counts[rule].bytes >= header + 8 + SIZE, rule
    assert counts["entry.udp"].packets == 1
