"""Protocols and ports in use that a guarded host will close: found, and named in one line each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from doctor_host import Fake

from sipfw.compiler.pipeline import compile_policy
from sipfw.monitor.doctor.closed import closed_protocols
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

GUARDED: Mapping[str, Any] = {"admin": {"networks": ["192.0.2.0/28"]}}
IGMP = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
SOCKETS = "  sl  local_address rem_address   st\n"
ENDS = "{}:{:04X} 00000000:0000 {} 00000000:00000000 00:00000000 00000000 0 0 {}"
CONNTRACK = "ipv4     2 {} {} 599 src=203.0.113.9 dst=198.51.100.1 src=198.51.100.1 use=1\n"
ESP = "src 203.0.113.9 dst 198.51.100.1\n\tproto esp spi 0xc1 reqid 1 mode tunnel\n"


def compiled(folder: Path, policy: Mapping[str, Any]) -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(dict(policy)))
    return compile_policy(load(Request(file=file)))


def said(fake: Fake, policy: Mapping[str, Any] = GUARDED) -> list[str]:
    found = closed_protocols(fake.host(), compiled(fake.folder, policy))
    return [f"{item.severity}: {item.message}" for item in found]


def socket(fake: Fake, proto: str, port: int, address: str = "00000000", holder: str = "") -> None:
    path = fake.folder / "proc/net" / proto
    text = path.read_text() if path.exists() else SOCKETS
    state = "0A" if proto == "tcp" else "07"
    fake.file(f"proc/net/{proto}", f"{text}   0: {ENDS.format(address, port, state, 70 + port)}\n")
    if holder:
        fake.file(f"proc/{port + 100}/comm", f"{holder}\n")
        fake.link(f"proc/{port + 100}/fd/3", f"socket:[{70 + port}]")


def test_a_host_that_uses_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.file("proc/net/igmp", IGMP + "1\tlo        :     1      V3\n\t\t\t\t010000E0     1\n")
    # ping, a socket that only sends, a resolver for the host itself, clients, ssh and SIP.
    for port in (1, 255):
        socket(fake, "raw", port)
    socket(fake, "udp", 53, "3500007F", "resolved")
    socket(fake, "udp", 68, holder="dhclient")
    socket(fake, "udp", 40000, holder="resolver")
    socket(fake, "udp", 5060, holder="kamailio")
    socket(fake, "udp", 12000, holder="rtpengine")
    socket(fake, "tcp", 22, holder="sshd")
    assert said(fake) == []


def test_the_rules_of_a_host_that_is_not_guarded_close_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    socket(fake, "raw", 112, holder="keepalived")
    assert said(fake, {}) == []
    assert said(fake, {**GUARDED, "host": {"default_drop": False}}) == []
    assert len(said(fake)) == 1


@pytest.mark.parametrize(
    ("word", "name"),
    [
        (112, "VRRP"),
        (89, "OSPF"),
        (50, "ESP (IPsec)"),
        (51, "AH (IPsec)"),
        (47, "GRE"),
        (4, "IPIP"),
        (41, "IPv6 in IPv4"),
        (132, "SCTP"),
        (103, "PIM"),
        (2, "IGMP"),
        (200, "IP protocol 200"),
    ],
)
@pytest.mark.parametrize("seen", ["raw", "conntrack"])
def test_a_protocol_is_named(word: int, name: str, seen: str, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    if seen == "raw":
        socket(fake, "raw", word, holder="someone")
    else:
        fake.file("proc/net/nf_conntrack", 3 * CONNTRACK.format("unknown", word))
    (line,) = said(fake)
    assert line.startswith(f"warning: {name}, IP protocol {word}, is in use (")
    assert "host.interfaces" in line
    assert ("someone" if seen == "raw" else "203.0.113.9") in line


def test_vrrp_is_told_once_with_its_interface(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    socket(fake, "raw", 112, holder="keepalived")
    fake.file("proc/9/comm", "keepalived\n")
    group = "4\teth1      :     2      V3\n\t\t\t\t120000E0     1 0:00000000\t\t0\n"
    fake.file("proc/net/igmp", IGMP + group)
    (line,) = said(fake)
    assert "eth1 is in the group 224.0.0.18" in line
    assert "through eth1 unasked" in line
    assert said(fake, {**GUARDED, "host": {"interfaces": ["eth1"]}}) == []


def test_tunnels_are_found_by_their_devices(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    kinds = {"gre1": ("gre", {}), "tun1": ("ipip", {}), "vx": ("vxlan", {"port": 8472})}
    links = [
        {"ifname": name, "flags": ["UP"], "linkinfo": {"info_kind": kind, "info_data": data}}
        for name, (kind, data) in kinds.items()
    ]
    down = {"ifname": "gre0", "flags": [], "linkinfo": {"info_kind": "sit"}}
    fake.programs.answers["ip -j -d link show"] = json.dumps([*links, down, {"ifname": 7}, 5])
    fake.programs.answers["ip xfrm state"] = ESP
    lines = said(fake)
    assert [line.split(" is in use")[0] for line in lines] == [
        "warning: GRE, IP protocol 47,",
        "warning: IPIP, IP protocol 4,",
        "warning: UDP 8472",
        "warning: ESP (IPsec), IP protocol 50,",
    ]
    assert lines[2].endswith("host.udp_ports: add 8472")
    opened = {**GUARDED, "host": {"udp_ports": [8472]}}
    assert len(said(fake, opened)) == 3


def test_listening_ports_are_one_line_for_each_transport(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    for port, holder in ((69, "in.tftpd"), (123, "ntpd"), (500, "charon"), (51820, "")):
        socket(fake, "udp", port, holder=holder)
    for port, holder in ((443, "nginx"), (3306, "mysqld"), (22, "sshd")):
        socket(fake, "tcp", port, holder=holder)
    socket(fake, "tcp", 6379, "0100007F", "redis")
    lines = said(fake)
    assert [line.partition(" will be ")[0] for line in lines] == [
        "warning: UDP 500 is in use (IKE (IPsec), charon) and",
        "warning: UDP 51820 is in use (WireGuard, the kernel) and",
        "note: UDP 69 (in.tftpd), 123 (ntpd)",
        "note: TCP 443 (nginx), 3306 (mysqld)",
    ]
    assert lines[3].endswith("host.tcp_ports: add 443")
    opened = {**GUARDED, "host": {"udp_ports": ["1-600", 51820], "tcp_ports": [443, 3306]}}
    assert said(fake, opened) == []


@pytest.mark.parametrize("text", ["", "\0", "x" * 5000, "[[[[", "a b c d e f\n" * 3])
def test_files_of_any_content_are_no_trouble(text: str, tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    for name in ("igmp", "raw", "raw6", "udp", "tcp", "nf_conntrack", "sctp/eps"):
        fake.file(f"proc/net/{name}", text)
    fake.file("proc/sys/net/ipv4/ip_local_port_range", text)
    fake.programs.answers["ip -j -d link show"] = text
    fake.programs.answers["ip xfrm state"] = text
    assert len(said(fake)) <= 1
