"""Beside Docker, fail2ban, CrowdSec, firewalld, ufw and FreePBX: nothing of theirs changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from neighbours import (
    BRIDGE,
    CONTAINER,
    CROWDSEC_BLOCKED,
    JAILED_SIP,
    JAILED_SIP6,
    JAILED_SSH,
    NEIGHBOURS,
    NFT_BLOCKED,
    NFT_JAILED,
    send_vrrp,
)
from shared_host import BACKENDS, OURS, SharedHost

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, TypeAlias

    Listing: TypeAlias = dict[str, list[str]]

pytestmark = pytest.mark.netns

CARRIER = {"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}
POLICY: Mapping[str, Any] = {"trusted_peers": [CARRIER]}
CHANGED: Mapping[str, Any] = {
    "switch": "asterisk",
    "admin": {"networks": ["192.0.2.0/28", "2001:db8:ad::/64"]},
    "trusted_peers": [CARRIER, {"name": "more", "signalling": ["203.0.113.64/26"]}],
    "bans": {"duration": "2h"},
}
THIRD: Mapping[str, Any] = {**POLICY, "limits": {"connlimit": None, "aggregate": "900/second"}}
STEPS = ("apply", "same again", "changed", "taken back", "rollback", "removed")


def load_neighbours(host: SharedHost) -> None:
    for each in NEIGHBOURS.values():
        if each.ipset:
            host.run("ipset", "restore", text=each.ipset)
        for command, text in each.restore.items():
            host.tool(f"{command}-restore", "--noflush", text=text)
        if each.nft:
            host.run("nft", "-f", "-", text=each.nft)


def give_them_packets(lab: Lab) -> None:
    """Send something that every neighbour counts, then let no packet in any more."""
    attacker = lab.attacker
    switch, switch6 = (lab.switch.address_for(attacker, family) for family in ("ip", "ip6"))
    jailed = [JAILED_SIP, CROWDSEC_BLOCKED, NFT_JAILED, NFT_BLOCKED, attacker.address4]
    attacker.spoof_udp(jailed * 3, switch, 5060, 5060, b"SIP")
    attacker.spoof_udp([attacker.address4] * 4, switch, 1194, 1194, b"VPN")
    attacker.spoof_udp([attacker.address4] * 2, switch, 12000, 12000, b"RTP")
    send_vrrp(attacker, switch, 2)
    attacker.spoof_udp([JAILED_SIP6, attacker.address6], switch6, 5060, 5060, b"SIP")
    attacker.spoof_udp([attacker.address6], switch6, 1194, 1194, b"VPN")
    attacker.spoof_udp([attacker.address4] * 2, CONTAINER, 9, 9, b"not published")
    attacker.add_address(JAILED_SSH)
    for port, source in ((22, JAILED_SSH), (22, attacker.address4), (8080, attacker.address4)):
        with pytest.raises((ConnectionRefusedError, TimeoutError, OSError)):
            attacker.tcp_connect(switch, port, source=source, timeout=0.3)
    lab.switch.send_udp(attacker.address4, 9, b"from a container", source=BRIDGE)
    for interface in ("attacker", "docker0"):
        lab.switch.run(["ip", "link", "set", interface, "down"])


class Story:
    """What the kernel held before sipfw came, and after each thing that it did."""

    def __init__(self, host: SharedHost) -> None:
        self.host = host
        self.before = host.foreign()
        self.sources = self.remembered()
        self.after: dict[str, Listing] = {}
        self.sources_after: dict[str, str] = {}

    def remembered(self) -> str:
        """Return the sources that the neighbours' own `-m recent` has seen."""
        lists = [f"/proc/net/xt_recent/{name}" for name in ("REPEAT", "DEFAULT")]
        return self.host.run("grep", "-H", "", *lists)

    def tell(self) -> None:
        host = self.host
        host.apply(POLICY)
        assert "sipfw" in host.everything()
        self.note("apply")
        host.apply(POLICY)
        self.note("same again")
        host.apply(CHANGED)
        self.note("changed")
        host.apply(THIRD, "--confirm", "300")
        host.must("rollback")
        self.note("taken back")
        host.must("rollback")
        self.note("rollback")
        host.must("remove", "--purge")
        self.note("removed")

    def note(self, step: str) -> None:
        self.after[step] = self.host.foreign()
        self.sources_after[step] = self.remembered()


@pytest.fixture(scope="module", params=BACKENDS)
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker",), forward=True) as lab:
        host = SharedHost(lab.switch, request.param, tmp_path_factory.mktemp("shared"))
        host.run("ip", "link", "add", "docker0", "type", "bridge")
        host.run("ip", "address", "add", f"{BRIDGE}/24", "dev", "docker0")
        host.run("ip", "link", "set", "docker0", "up")
        load_neighbours(host)
        give_them_packets(lab)
        told = Story(host)
        told.tell()
        yield told


def counted(line: str) -> bool:
    words = line.replace("[", " ").replace(":", " ").split()
    if line.startswith("["):
        return int(words[0]) > 0
    return "packets" in words and int(words[words.index("packets") + 1]) > 0


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_keeps_every_rule_set_and_counter(name: str, story: Story) -> None:
    before = NEIGHBOURS[name].lines(story.before)
    assert sum(counted(line) for line in before) >= 1
    for step in STEPS:
        assert NEIGHBOURS[name].lines(story.after[step]) == before, step


@pytest.mark.parametrize("step", STEPS)
def test_all_that_is_not_ours_is_the_same_in_its_order(step: str, story: Story) -> None:
    assert story.after[step] == story.before


@pytest.mark.parametrize("step", STEPS)
def test_what_their_rules_remember_stays(step: str, story: Story) -> None:
    assert "src=198.51.100.66" in story.sources
    assert story.sources_after[step] == story.sources


def test_nothing_of_ours_is_left(story: Story) -> None:
    left = [line for line in story.host.everything().splitlines() if OURS.search(line)]
    assert left == []
    assert not [path for path in story.host.root.rglob("*") if path.is_file()]
