"""Real calls through kamailio and a relay that learns from packets, while others inject RTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from packets.media.exchange import exchange
from packets.media.scene import FIRST, policy
from packets.registrar import needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Lab
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio")]

CALLS = 20
GATEWAY = "203.0.113.77"
PEERS = [
    {"name": "carrier", "signalling": ["203.0.113.10"]},
    {"name": "office", "signalling": ["192.0.2.100"]},
]
# What an attacker sends into the calls, to each of their ports in turn, and over all media ports.
INJECTED = 2000
SCANNED = 10_000
SCAN = """
import socket, sys
target, first, ports, packets = sys.argv[1], *map(int, sys.argv[2:])
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(packets):
    sending.sendto(bytes.fromhex("8000") + bytes(170), (target, first + number % ports))
"""


def attack(lab: Lab, first: int, ports: int, packets: int) -> None:
    """Send to the address on which callers are spoken to."""
    words = [lab.switch.address_for(lab.carrier), *map(str, (first, ports, packets))]
    lab.attacker.run(["python3", "-c", SCAN, *words])


@pytest.fixture
def gateway(lab: Lab) -> Iterator[str]:
    """Give the carrier an address for media that no policy names."""
    words = (f"{GATEWAY}/24", "dev", "eth0")
    lab.carrier.run(["ip", "address", "add", *words])
    yield GATEWAY
    lab.carrier.run(["ip", "address", "del", *words])


@pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
def test_calls_are_heard_and_nobody_else(
    lab: Lab, firewall: Firewall, gateway: str, tmp_path: Path
) -> None:
    media = {"ports": ["10000-20000"]}
    firewall.load(policy("expected", media=media, trusted_peers=PEERS))
    unheard = lab.switch.counters()["UdpNoPorts"]
    with exchange(lab, tmp_path, FIRST) as running:
        caller, callee = running.calls(CALLS, gateway)
        time.sleep(1.5)
        attack(lab, FIRST, 4 * CALLS, INJECTED)
        attack(lab, 10000, SCANNED, SCANNED)
        near, far = caller.end()["calls"], callee.end()["calls"]
        relayed = running.relayed()
    assert [each["status"] for each in near] == ["200"] * CALLS
    assert len(far) == CALLS
    assert lab.attacker.address4 not in relayed
    assert lab.switch.counters()["UdpNoPorts"] == unheard
    assert firewall.counted("media.drop", "ip") >= INJECTED + SCANNED
    # A callee that is known speaks at once, so its caller is heard from the first packets on.
    said, heard = sum(each["sent"] for each in near), [each["came"] for each in far]
    assert all(each[0] <= 2 for each in heard)
    assert sum(map(len, heard)) >= said - 3 * CALLS
    # Early media and all that follows, without a gap.
    said, heard = sum(each["sent"] for each in far), [each["came"] for each in near]
    assert all(each == list(range(len(each))) for each in heard)
    assert sum(map(len, heard)) >= said - 3 * CALLS


@pytest.mark.parametrize("firewall", ["nftables"], indirect=True)
def test_from_anywhere_a_stranger_gets_into_a_call(
    lab: Lab, firewall: Firewall, gateway: str, tmp_path: Path
) -> None:
    """What the test above keeps out: a relay learns from packets, and so from an attacker's."""
    firewall.load(policy("anywhere", trusted_peers=PEERS))
    with exchange(lab, tmp_path, FIRST) as running:
        caller, callee = running.calls(1, gateway)
        time.sleep(1.5)
        attack(lab, FIRST, 4, 40)
        caller.end()
        callee.end()
        assert running.relayed()[lab.attacker.address4] > 0


@pytest.mark.parametrize("firewall", ["nftables"], indirect=True)
def test_two_ends_that_nobody_knows_hear_nothing_of_each_other(
    lab: Lab, firewall: Firewall, gateway: str, tmp_path: Path
) -> None:
    """Where it does not fit: a relay says nothing of its own, so each waits for the other."""
    carrier = PEERS[0]
    firewall.load(policy("expected", trusted_peers=[carrier]))
    with exchange(lab, tmp_path, FIRST) as running:
        caller, callee = running.calls(1, gateway)
        assert caller.end()["calls"][0]["came"] == callee.end()["calls"][0]["came"] == []
        assert running.relayed() == {}
    firewall.clear()
    # Naming the media networks of one of them is enough.
    named = {**carrier, "media": [f"{gateway}/32"]}
    firewall.load(policy("expected", trusted_peers=[named]))
    with exchange(lab, tmp_path, FIRST) as running:
        caller, callee = running.calls(1, gateway)
        assert caller.end()["calls"][0]["came"]
        assert callee.end()["calls"][0]["came"]
