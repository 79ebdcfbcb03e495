"""A port that leads to SIP behind table raw: named by every command, and taken in by the policy."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, get_args

import pytest
from shared_host import BACKENDS, SharedHost

from lab import Family, Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

SCAN = b"OPTIONS sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n"
COUNT = 100
COMMANDS = {"ip": "iptables", "ip6": "ip6tables"}
POLICY = {"signalling": {"udp": [5060], "tcp": [5060]}}
TAKEN_IN = {"signalling": {"udp": [5060, 7070], "tcp": [5060]}}
NFT = """
table inet somebody {
    chain jump_there {
        meta l4proto udp redirect to :5060
    }
    chain pre {
        type nat hook prerouting priority -90
        udp dport vmap { 7070 : jump jump_there }
    }
}
"""


@pytest.fixture(params=BACKENDS)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, SharedHost]]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker",)) as lab:
        yield lab, SharedHost(lab.switch, request.param, tmp_path_factory.mktemp("moves"))


def arriving(lab: Lab) -> dict[Family, int]:
    """Return how many of a scanner's packets to the unlisted port reach the switch."""
    found = {}
    for family in get_args(Family):
        sink = lab.switch.udp_sink(5060)
        target = lab.switch.address_for(lab.attacker, family)
        lab.attacker.send_udp(target, 7070, [SCAN] * COUNT)
        found[family] = sink.settle(quiet=0.2)
        lab.switch.reset()
    return found


def redirect(host: SharedHost) -> None:
    if host.backend == "nftables":
        host.run("nft", "-f", "-", text=NFT)
        return
    for command in COMMANDS.values():
        rule = "-t nat -A PREROUTING -p udp --dport 7070 -j REDIRECT --to-ports 5060"
        host.tool(command, *rule.split())


def test_a_redirected_port(built: tuple[Lab, SharedHost]) -> None:
    lab, host = built
    host.apply(POLICY)
    assert host.sipfw("verify", "--brief").stdout.startswith("HEALTHY")
    redirect(host)
    # Why it matters: the scanner's port is not the one that the rules look at.
    assert arriving(lab) == {"ip": COUNT, "ip6": COUNT}
    brief = host.sipfw("verify", "--brief")
    assert brief.returncode == 2
    assert brief.stdout.startswith("DEGRADED: ")
    assert "leads udp port 7070 to SIP port 5060 past every layer" in brief.stdout
    assert "add 7070 to signalling.udp" in brief.stdout
    page = json.loads(host.sipfw("doctor", "--json").stdout)["findings"]
    (found,) = [item for item in page if item["name"] == "port-moves"]
    assert found["state"] == "problem"
    policy = host.policy(POLICY)
    rehearsed = host.sipfw("apply", "--backend", host.backend, "--policy", policy, "--dry-run")
    assert rehearsed.returncode == 0
    assert "warning: signalling:" in rehearsed.stderr
    assert "leads udp port 7070 to SIP port 5060" in rehearsed.stderr

    host.apply(TAKEN_IN)
    assert host.sipfw("verify", "--brief").stdout.startswith("HEALTHY")
    assert arriving(lab) == {"ip": 0, "ip6": 0}
