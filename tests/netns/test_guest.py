"""sipfw as a guest: what neighbours count and take is the same before, beside and after it.

Packets of every neighbour are sent before sipfw comes, and again after each thing that it does.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from neighbours import (
    BRIDGE,
    CROWDSEC_BLOCKED,
    JAILED_SIP,
    JAILED_SIP6,
    NEIGHBOURS,
    NFT_BLOCKED,
    NFT_JAILED,
    send_vrrp,
)
from shared_host import BACKENDS, SharedHost

from lab import Lab, sip, unavailable_reason
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.policy.load import Request, load
from sipfw.render.script import script_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.netns

# FreePBX's own firewall limits all of SIP; the others are those that a switch lives with.
GUESTS = {name: item for name, item in NEIGHBOURS.items() if name != "freepbx"}
POLICY: Mapping[str, Any] = {
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}]
}
# VRRP comes in from the carrier's side, which the guarded host names.
GUARDED: Mapping[str, Any] = {
    **POLICY,
    "admin": {"networks": ["192.0.2.0/24", "198.51.100.66/32"]},
    "host": {"interfaces": ["carrier"], "udp_ports": [1194]},
}
STEPS = ("apply", "same again", "neighbours come again", "guarded", "taken back", "removed")
TABLE = re.compile(r"^\*(\w+)\n(.*?)^COMMIT", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"^\[(\d+):\d+\] (-A .*)|^(.*counter packets )(\d+)( bytes )\d+(.*)")


@dataclass
class Guest:
    """The host, its neighbours, and what came of the same packets at each step."""

    lab: Lab
    host: SharedHost
    script: bool
    counted: dict[str, Counter[str]] = field(default_factory=dict)
    delivered: dict[str, list[str]] = field(default_factory=dict)
    scans: dict[str, int] = field(default_factory=dict)

    def load_neighbours(self) -> None:
        for each in GUESTS.values():
            if each.ipset:
                self.host.run("ipset", "restore", "-exist", text=each.ipset)
            for command, text in each.restore.items():
                self.host.tool(f"{command}-restore", "--noflush", text=text)
            if each.nft:
                self.host.run("nft", "-f", "-", text=each.nft)

    def neighbours_come_again(self) -> None:
        """Take their rules out and load them anew, as their services do at a restart."""
        for command in ("iptables", "ip6tables"):
            for table, text in TABLE.findall(self.host.tool(f"{command}-save")):
                numbers: Counter[str] = Counter()
                places = []
                for chain, rule in re.findall(r"^-A ([A-Z]+) (.*)", text, re.MULTILINE):
                    numbers[chain] += 1
                    if "sipfw" not in rule:
                        places.append((chain, numbers[chain]))
                for chain, number in reversed(places):
                    self.host.tool(command, "-t", table, "-D", chain, str(number))
        for each in GUESTS.values():
            if each.table:
                self.host.run("nft", "delete", *each.table.split())
        self.load_neighbours()

    def apply(self, policy: Mapping[str, Any], *more: str) -> None:
        if not self.script:
            self.host.apply(policy, *more)
            return
        ruleset = compile_policy(load(Request(file=Path(self.host.policy(policy)))))
        text = script_text(lower(ruleset, ipset=True), ruleset.sysctls)
        (self.host.folder / "firewall.sh").write_text(text)
        self.run_script("apply", *more)

    def run_script(self, *words: str) -> None:
        settings = {"IPTABLES": "iptables-legacy", "SIPFW_ROOT": str(self.host.root)}
        self.host.root.mkdir(exist_ok=True)
        path = self.host.folder / "firewall.sh"
        self.lab.switch.run(["sh", str(path), *words], env={**self.host.env, **settings})

    def tell(self) -> None:
        self.send()
        self.note("alone")
        self.apply(POLICY)
        self.note("apply")
        self.apply(POLICY)
        self.note("same again")
        self.neighbours_come_again()
        self.note("neighbours come again")
        self.apply(GUARDED, "--confirm", "300")
        self.note("guarded")
        if self.script:
            self.run_script("rollback")
        else:
            self.host.must("rollback")
        self.note("taken back")
        if self.script:
            self.run_script("remove")
        else:
            self.host.must("remove")
        self.note("removed")

    def note(self, step: str) -> None:
        self.lab.switch.run(["conntrack", "-F"])
        before = self.counters()
        self.delivered[step] = self.send()
        self.counted[step] = Counter(
            {line: n - before[line] for line, n in self.counters().items() if n != before[line]}
        )
        self.scans[step] = self.scan()

    def counters(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for table, lines in self.host.foreign().items():
            for line in lines:
                # The kernel's own ICMPv6 comes at moments of its own.
                quiet = not table.startswith("ip6") or " -p " in line or " -s " in line
                if quiet and (number := NUMBER.match(line)):
                    text = number[2] or f"{number[3]}{re.sub(' # handle .*', '', number[6])}"
                    found[f"{table}: {text}"] += int(number[1] or number[4])
        return found

    def send(self) -> list[str]:
        """Send what each neighbour counts, all of it admitted by sipfw; return who arrived."""
        attacker, carrier, switch = self.lab.attacker, self.lab.carrier, self.lab.switch
        sink, media = switch.udp_sink(5060), switch.udp_sink(12000)
        own, own6 = switch.address_for(attacker), switch.address_for(attacker, "ip6")
        peer = switch.address_for(carrier)
        text = sip.request("INVITE", source=attacker.address4, destination=own)
        sources = [attacker.address4, JAILED_SIP, CROWDSEC_BLOCKED, NFT_JAILED, NFT_BLOCKED]
        attacker.spoof_udp(sources, own, 5060, 5060, text)
        attacker.spoof_udp([attacker.address6, JAILED_SIP6], own6, 5060, 5060, text)
        attacker.spoof_udp([attacker.address4] * 5, own, 12000, 12000, b"\x80" * 40)
        attacker.spoof_udp([attacker.address4] * 3, own, 1194, 1194, b"VPN")
        carrier.spoof_udp([carrier.address4] * 2, peer, 5060, 5060, text)
        send_vrrp(carrier, peer, 3)
        for port in (22, 8080):
            with pytest.raises((ConnectionRefusedError, TimeoutError, OSError)):
                attacker.tcp_connect(own, port, timeout=0.2)
        sink.settle()
        came = sorted(item.source for item in sink.arrivals())
        came += [f"media {media.settle()}"]
        sink.close()
        media.close()
        return came

    def scan(self) -> int:
        """Return how many of three OPTIONS of a stranger arrive."""
        attacker, switch = self.lab.attacker, self.lab.switch
        sink = switch.udp_sink(5060)
        own = switch.address_for(attacker)
        text = sip.request("OPTIONS", source=attacker.address4, destination=own)
        attacker.spoof_udp([attacker.address4] * 3, own, 5061, 5060, text)
        found = sink.settle()
        sink.close()
        return found


@pytest.fixture(scope="module", params=[*BACKENDS, "script"])
def guest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    script = request.param == "script"
    backend = "iptables-legacy" if script else request.param
    with Lab(hosts=("carrier", "attacker"), forward=True) as lab:
        host = SharedHost(lab.switch, backend, tmp_path_factory.mktemp("guest"))
        host.run("ip", "link", "add", "docker0", "type", "bridge")
        host.run("ip", "addr", "add", f"{BRIDGE}/24", "dev", "docker0")
        host.run("ip", "link", "set", "docker0", "up")
        told = Guest(lab, host, script)
        told.load_neighbours()
        told.tell()
        yield told


def test_every_neighbour_sees_packets_without_us(guest: Guest) -> None:
    seen = "\n".join(guest.counted["alone"])
    for mark in (
        "DOCKER",
        "f2b-asterisk",
        "f2b-sshd",
        "crowdsec",
        "rtpengine",
        "keepalived",
        "ufw",
        "f2b-table",
        "firewalld",
    ):
        assert mark in seen, mark
    assert guest.scans["alone"] == 3
    assert "media 0" in guest.delivered["alone"]


@pytest.mark.parametrize("step", STEPS)
def test_every_neighbour_counts_what_it_counted_without_us(step: str, guest: Guest) -> None:
    assert guest.counted[step] == guest.counted["alone"]
    assert guest.delivered[step] == guest.delivered["alone"]


@pytest.mark.parametrize("step", STEPS)
def test_sip_is_guarded_as_long_as_we_are_there(step: str, guest: Guest) -> None:
    assert guest.scans[step] == (3 if step == "removed" else 0)
