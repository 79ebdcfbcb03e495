"""What carries a login, from what iproute2 prints and from a `/proc` of ordinary files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import pytest
from proc_folder import ESTABLISHED, HERE, Proc

from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.lists.exempt import exempt_by_host
from sipfw.deploy.lockout import guard as lockout
from sipfw.deploy.lockout.guard import guard
from sipfw.deploy.lockout.passages import passages, placed
from sipfw.host.network import NetworkFacts
from sipfw.host.runner import Completed, MissingProgramError
from sipfw.host.sessions import Session
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

# The client within the tunnel, its own end, and the two ends outside.
CLIENT, OWN = "192.0.2.7", "192.0.2.1"
CLIENT6, OWN6 = "2001:db8:7::7", "2001:db8:7::1"
FAR, FAR6 = "198.51.100.66", "2001:db8:66::66"
MAC = "02:00:5e:00:53:07"
KEY = "wMf/0a6m0a3R2xVJ0ilYAy8cLYhQ3iJ6pXTyWMJQkE4="
ADMIN = "admin: {networks: [192.0.2.0/24, '2001:db8:7::/64']}\n"


@dataclass
class Programs:
    """A runner whose programs print what a test says, by the words that they are called with."""

    said: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        words = " ".join(argv)
        self.asked.append(words)
        if not self.said:
            raise MissingProgramError(f"{argv[0]}: program not found")
        for start, text in self.said.items():
            if words.startswith(start):
                return Completed(0, text, "")
        return Completed(1, "", "Object not found")

    def links(self, *found: dict[str, Any]) -> Programs:
        self.said["ip -j -d address show"] = json.dumps(found)
        return self

    def route(self, address: str, device: str) -> Programs:
        self.said[f"ip -j route get {address}"] = json.dumps([{"dst": address, "dev": device}])
        return self


def link(name: str, kind: str = "", **more: Any) -> dict[str, Any]:
    data = {key: more.pop(key) for key in ("local", "remote", "port", "encap") if key in more}
    info = {"info_kind": kind, "info_data": data}
    addresses = [{"family": "inet", "local": item} for item in more.pop("addresses", [])]
    return {"ifname": name, "linkinfo": info, "addr_info": addresses, "link_type": "none", **more}


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    (tmp_path / "proc").mkdir()
    return Proc(tmp_path / "proc")


@pytest.fixture
def programs() -> Programs:
    return Programs().links(link("eth0")).route(CLIENT, "t0").route(FAR, "eth0")


def login(client: str = CLIENT, own: str = OWN, interface: str | None = "t0") -> Session:
    return Session(ip_address(client), 50000, ip_address(own), 22, "connected now", interface)


def compiled(tmp_path: Path, text: str) -> Ruleset:
    file = tmp_path / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return compile_policy(load(Request(file)))


def findings(
    tmp_path: Path, proc: Proc, programs: Programs, policy: str = ADMIN, *sessions: Session
) -> list[str]:
    who = sessions or (login(),)
    found = passages(who, NetworkFacts(programs), proc.root)
    return [
        f"{item.severity}: {item.message}" for item in guard(compiled(tmp_path, policy), who, found)
    ]


def six_to_four(address: str) -> str:
    return str(IPv6Address(0x2002 << 112 | int(IPv4Address(address)) << 80 | 7))


ENDS = {"local": HERE, "remote": FAR}
BY_PROTOCOL = "host.protocols: add "

KERNEL = [
    (link("t0", "vxlan", port=4789, **ENDS), CLIENT, f"UDP port 4789 from {FAR}, would be cut off"),
    (link("t0", "vxlan", **ENDS), CLIENT, f"UDP port 8472 from {FAR}, would be cut off"),
    (link("t0", "geneve", port=6081, remote=FAR), CLIENT, "host.udp_ports: add 6081"),
    (link("t0", "bareudp"), CLIENT, "host.udp_ports: add 6635"),
    (link("t0", "ipip", **ENDS), CLIENT, f"IP protocol 4 (IPIP) from {FAR}, could not come back"),
    (link("t0", "sit", **ENDS), CLIENT6, f"IP protocol 41 (IPv6 in IPv4 or IPv6) from {FAR}"),
    (link("t0", "sit", local=HERE, remote="any"), six_to_four(FAR), f"IPv6) from {FAR},"),
    (link("t0", "gre", **ENDS), CLIENT, f"IP protocol 47 (GRE) from {FAR}"),
    (link("t0", "gretap", local="any", remote="any"), CLIENT, "IP protocol 47 (GRE), could not"),
    (link("t0", "ip6gre", local="2001:db8::1", remote=FAR6), CLIENT, f"47 (GRE) from {FAR6}"),
    (link("t0", "ip6tnl", local="2001:db8::1", remote=FAR6), CLIENT, f"4 (IPIP) from {FAR6}"),
    (link("t0", "ipip", encap={"type": "fou"}, **ENDS), CLIENT, "host.udp_ports: add 5555"),
    (link("t0", "l2tpeth"), CLIENT, f"UDP port 1701 from {FAR}, could not come back"),
    (link("t0", "ppp"), CLIENT, f"UDP port 1701 from {FAR}, could not come back"),
]  # fmt: skip


@pytest.mark.parametrize("case", KERNEL, ids=lambda case: case[2])
def test_a_tunnel_of_the_kernel_names_what_carries_it(
    tmp_path: Path, proc: Proc, programs: Programs, case: tuple[dict[str, Any], str, str]
) -> None:
    device, client, expected = case
    programs.links(device, link("eth0"))
    programs.said["ip -j fou show"] = '[{"port":5555,"ipproto":4}]'
    programs.said["ip -j l2tp show tunnel"] = json.dumps(
        [{"tunnel_id": 1, "encap": "udp", "peer": FAR, "local_port": 1701, "peer_port": 1701}]
    )
    own = OWN if ":" not in client else six_to_four(HERE) if client == six_to_four(FAR) else OWN6
    admin = ADMIN.replace("192.0.2.0/24", f"192.0.2.0/24, '{six_to_four(FAR)}'")
    (found,) = findings(tmp_path, proc, programs, admin, login(client, own))
    assert found.startswith(f"error: the ssh client {client} (connected now) comes through the ")
    assert expected in found
    assert ("host.udp_ports: add" in found) != (BY_PROTOCOL in found)


@pytest.mark.parametrize("device", [link("t0"), link("t0", "veth", link="t1"), link("t0", "dummy")])
def test_what_is_no_tunnel_asks_for_nothing(
    tmp_path: Path, proc: Proc, programs: Programs, device: dict[str, Any]
) -> None:
    assert findings(tmp_path, proc, programs.links(device)) == []


def test_a_policy_that_lets_it_in_is_no_finding(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.links(link("t0", "gre", **ENDS), link("eth0"))
    inner = ADMIN + "host: {interfaces: [eth0]}\n"
    assert findings(tmp_path, proc, programs, inner) == []
    assert findings(tmp_path, proc, programs, ADMIN + "host: {default_drop: false}\n") == []
    programs.links(link("t0", "vxlan", port=4789, **ENDS))
    assert findings(tmp_path, proc, programs, ADMIN + "host: {udp_ports: [4789]}\n") == []
    taken = "signalling: {udp: [5060, 4789]}\nlimits: {unknown_sources: denied}\n"
    peer = "trusted_peers: [{name: a, signalling: [203.0.113.10]}]\n"
    (found,) = findings(tmp_path, proc, programs, ADMIN + taken + peer)
    assert "; signalling: take 4789 out" in found


def test_a_vlan_on_a_bridge_leads_to_the_port_that_has_seen_the_client(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.links(
        link("t0", "vlan", link="br0"),
        link("br0", "bridge"),
        link("eth1", master="br0"),
        link("vx1", "vxlan", master="br0", port=4789, remote="198.51.100.99"),
        link("vx2", "vxlan", master="br0", port=4790),
    )
    seen = json.dumps(
        [{"mac": "00:00:00:00:00:00", "dst": "198.51.100.98"}, {"mac": MAC, "dst": FAR}]
    )
    programs.said[f"ip -j neighbour show to {CLIENT}"] = json.dumps([{"dev": "br0", "lladdr": MAC}])
    programs.said["bridge -j fdb show dev vx2"] = seen
    (found,) = findings(tmp_path, proc, programs)
    assert f"the tunnel vx2 (vxlan), and what carries that, UDP port 4790 from {FAR}," in found
    del programs.said["bridge -j fdb show dev vx2"]
    # Nobody knows the port: each tunnel among them is asked for.
    assert len(findings(tmp_path, proc, programs)) == 2


def test_tunnels_within_tunnels_are_followed_to_the_end_and_no_further(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    inner = {"local": "192.0.2.129", "remote": "192.0.2.130"}
    programs.links(link("t0", "gre", **inner), link("t1", "vxlan", port=4789, **ENDS), link("eth0"))
    programs.route("192.0.2.130", "t1")
    found = findings(tmp_path, proc, programs)
    assert ["47 (GRE)" in found[0], "UDP port 4789" in found[1], len(found)] == [True, True, 2]
    # A tunnel whose outside leads into itself is a fault of the host, and no endless walk.
    programs.route("192.0.2.130", "t0")
    assert len(findings(tmp_path, proc, programs)) == 1


def wireguard(programs: Programs, *, keepalive: str = "off", allowed: str = "192.0.2.0/28") -> None:
    programs.links(link("t0", "wireguard"), link("eth0"))
    programs.said |= {
        "wg show t0 listen-port": "51820\n",
        "wg show t0 fwmark": "0xca6c\n",
        "wg show t0 allowed-ips": f"A{KEY}\t0.0.0.0/0 ::/0\n{KEY}\t{allowed}\nB{KEY}\t(none)\n",
        "wg show t0 endpoints": f"A{KEY}\t(none)\n{KEY}\t{FAR}:4444\nB{KEY}\t[{FAR6}]:1\n",
        "wg show t0 persistent-keepalive": f"A{KEY}\toff\n{KEY}\t{keepalive}\n",
    }


def test_wireguard_names_its_port_and_the_far_end_of_the_right_peer(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    wireguard(programs)
    (found,) = findings(tmp_path, proc, programs)
    assert f"the tunnel t0 (wireguard), and what carries that, UDP port 51820 from {FAR}" in found
    assert found.endswith("; host.udp_ports: add 51820")
    assert f"ip -j route get {FAR} mark 0xca6c" in programs.asked
    assert findings(tmp_path, proc, programs, ADMIN + "host: {udp_ports: [51820]}\n") == []


def test_wireguard_that_this_host_keeps_open_is_a_warning(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    wireguard(programs, keepalive="25")
    (found,) = findings(tmp_path, proc, programs)
    assert found.startswith("warning: ")
    assert "lasts only while this host itself keeps it open" in found
    wireguard(programs, keepalive="600")
    assert findings(tmp_path, proc, programs)[0].startswith("error: ")


def test_without_wg_the_sockets_of_the_kernel_tell_the_port(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.links(link("t0", "wireguard"))
    proc.process(300, "ntpd", 1, sockets=(31,))
    proc.socket(("0.0.0.0", 123), inode=31, kind="udp")
    proc.socket(("0.0.0.0", 51820), inode=32, kind="udp")
    (found,) = findings(tmp_path, proc, programs)
    assert "UDP port 51820, could not come back" in found


def tun(proc: Proc, programs: Programs, name: str, *, sockets: tuple[int, ...]) -> None:
    programs.links(link("t0", "tun"), link("eth0"))
    proc.process(300, name, 1, sockets=sockets)
    proc.serves_tun(300, "t0")


def test_a_tun_device_asks_for_the_sockets_of_its_program(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    tun(proc, programs, "openvpn", sockets=(31, 32, 33, 34))
    proc.socket(("0.0.0.0", 1194), inode=31, kind="udp")
    proc.socket(("::", 1194), inode=32, kind="udp")
    proc.socket(("127.0.0.1", 7505), inode=33)
    # It asks a database by itself, which carries nothing.
    proc.socket((HERE, 40000), (FAR, 636), ESTABLISHED, inode=34)
    (found,) = findings(tmp_path, proc, programs)
    assert "the tunnel t0 (tun), and what carries that, UDP port 1194, could not" in found
    assert findings(tmp_path, proc, programs, ADMIN + "host: {udp_ports: [1194]}\n") == []


def test_a_tunnel_that_this_host_has_dialled_needs_no_open_port(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    tun(proc, programs, "openvpn", sockets=(31,))
    proc.socket((HERE, 40000), (FAR, 443), ESTABLISHED, inode=31)
    assert findings(tmp_path, proc, programs) == []


def test_an_openvpn_client_is_told_by_its_configuration(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    tun(proc, programs, "openvpn", sockets=(31,))
    proc.socket(("0.0.0.0", 40000), inode=31, kind="udp")
    command = proc.root / "300" / "cmdline"
    command.write_text(f"/usr/sbin/openvpn\0--cd\0{tmp_path}\0--config\0office.conf\0")
    assert len(findings(tmp_path, proc, programs)) == 1, "the file is not there"
    (tmp_path / "office.conf").write_text("# client\n\nport 40000\nserver 192.0.2.0 /24\n")
    assert len(findings(tmp_path, proc, programs)) == 1
    (tmp_path / "office.conf").write_text("  client\nremote vpn.example.com\n")
    assert findings(tmp_path, proc, programs) == []
    command.write_text("/usr/sbin/openvpn\0--nobind\0")
    assert findings(tmp_path, proc, programs) == []


def test_tailscale_goes_on_without_its_port(tmp_path: Path, proc: Proc, programs: Programs) -> None:
    tun(proc, programs, "tailscaled", sockets=(31,))
    proc.socket(("0.0.0.0", 41641), inode=31, kind="udp")
    assert findings(tmp_path, proc, programs) == []


def test_a_tap_of_a_virtual_machine_has_no_outside(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    tun(proc, programs, "qemu-system-x86", sockets=(31, 32))
    proc.socket(("0.0.0.0", 5900), inode=31)
    proc.socket((HERE, 5900), (FAR, 40000), ESTABLISHED, inode=32)
    assert findings(tmp_path, proc, programs) == []


def test_a_tun_device_whose_program_cannot_be_seen_is_refused(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.links(link("t0", "tun"))
    (found,) = findings(tmp_path, proc, programs)
    assert found.startswith("error: ")
    assert "what carries that cannot be seen from here" in found
    # Served from another namespace, its packets do not come through this firewall.
    proc.process(300, "openvpn", 1, namespace="net:[2]")
    proc.serves_tun(300, "t0")
    assert findings(tmp_path, proc, programs) == []


def test_pptp_needs_its_connection_and_its_protocol(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.links(link("t0", "ppp", link_type="ppp"))
    proc.process(1, "init", 0, sockets=(30,))
    proc.process(250, "pptpctrl", 1, sockets=(31, 32))
    proc.process(300, "pppd", 250)
    (proc.root / "300" / "fd" / "9").symlink_to("/dev/ppp")
    proc.socket(("0.0.0.0", 1723), inode=30)
    proc.socket((HERE, 1723), (FAR, 40000), ESTABLISHED, inode=31)
    proc.socket(("0.0.0.0", 47), inode=32, kind="raw")
    found = findings(tmp_path, proc, programs, ADMIN + "host: {tcp_ports: [1723]}\n")
    assert ["IP protocol 47 (GRE)" in item for item in found] == [True]
    both = findings(tmp_path, proc, programs)
    assert [item.startswith("error: ") for item in both] == [True, True]
    assert f"admin.networks: add {FAR}/32 and admin.web_ports: add 1723, or" in both[0]


POLICIES = f"""\
src 192.0.2.0/28 dst 192.0.2.1/32
\tdir in priority 367231 ptype main
\ttmpl src {FAR} dst {HERE}
\t\tproto esp reqid 1 mode tunnel
src 0.0.0.0/0 dst 0.0.0.0/0
\tsocket in priority 0 ptype main
src 0.0.0.0/0 dst 0.0.0.0/0
\tdir in priority 399999 ptype main
\tmark 0x7/0xffffffff
\ttmpl src 198.51.100.99 dst {HERE}
\t\tproto esp reqid 2 mode tunnel
broken
"""


def test_ipsec_without_an_interface_is_found_by_its_policy(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.said["ip xfrm policy list dir in"] = POLICIES
    (found,) = findings(tmp_path, proc, programs, ADMIN, login(interface="eth0"))
    assert f"comes through IPsec, and what carries that, IP protocol 50 (ESP) from {FAR}" in found
    assert findings(tmp_path, proc, programs, ADMIN, login("192.0.2.77", interface="eth0")) == []
    programs.said[f"ip xfrm state list src {FAR}"] = (
        f"src {FAR} dst {HERE}\n\tproto esp spi 0x1 reqid 1 mode tunnel\n"
        "\tencap type espinudp sport 4500 dport 4500 addr 0.0.0.0\n"
    )
    proc.socket(("0.0.0.0", 500), inode=31, kind="udp")
    first, exchange = findings(tmp_path, proc, programs, ADMIN, login(interface="eth0"))
    assert first.endswith("; host.udp_ports: add 4500")
    assert exchange.endswith("; host.udp_ports: add 500")


def test_no_question_loads_a_module(tmp_path: Path, proc: Proc, programs: Programs) -> None:
    table = proc.root / "net" / "netlink"
    table.write_text("sk Eth Pid Groups\n0000 0 0 00000000\n0001 12 0 00000000\n")
    (proc.root / "modules").write_text("ppp_generic 61440 0 - Live 0x0\n")
    programs.links(link("t0", "ppp"))
    assert len(findings(tmp_path, proc, programs)) == 1
    assert not [words for words in programs.asked if "xfrm" in words or "l2tp" in words]
    with table.open("a") as file:
        file.write("0002 6 0 00000000\n")
    findings(tmp_path, proc, programs)
    assert "ip xfrm policy list dir in" in programs.asked


def test_ipsec_of_an_interface_counts_for_what_comes_through_it(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    programs.said["ip xfrm policy list dir in"] = POLICIES
    programs.links(link("t0", "vti", local=HERE, remote="198.51.100.99"))
    (found,) = findings(tmp_path, proc, programs, ADMIN, login("192.0.2.77"))
    assert "the tunnel t0 (vti), and what carries that, IP protocol 50 (ESP) from" in found


def test_a_client_from_this_host_is_whoever_its_proxy_serves(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    proc.process(300, "haproxy", 1, sockets=(31, 32, 33, 34))
    proc.socket(("0.0.0.0", 443), inode=31)
    proc.socket(("127.0.0.1", 50000), ("127.0.0.1", 22), ESTABLISHED, inode=32)
    proc.socket((HERE, 443), (FAR, 1), ESTABLISHED, inode=33)
    here = login("127.0.0.1", "127.0.0.1", "lo")
    (found,) = findings(tmp_path, proc, programs, ADMIN, here)
    assert f"the proxy haproxy, and what carries that, TCP port 443 from {FAR}, could not" in found
    # One of its two clients stays: which of them is logged in, nobody can tell.
    proc.socket((HERE, 443), ("192.0.2.9", 2), ESTABLISHED, inode=34)
    web = ADMIN.replace("}", ", web_ports: [443]}")
    (found,) = findings(tmp_path, proc, programs, web, here)
    assert found.startswith("warning: ")
    assert findings(tmp_path, proc, programs, ADMIN + "host: {tcp_ports: [443]}\n", here) == []


def test_a_transparent_proxy_shows_the_client_and_asks_for_its_own_port(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    proc.process(300, "sslh", 1, sockets=(31, 32, 33))
    proc.socket(("0.0.0.0", 443), inode=31)
    proc.socket((FAR, 50000), ("127.0.0.1", 22), ESTABLISHED, inode=32)
    proc.socket((HERE, 443), (FAR, 50000), ESTABLISHED, inode=33)
    shown = placed(login(FAR, "127.0.0.1", "eth0"), NetworkFacts(programs), proc.root)
    (found,) = findings(tmp_path, proc, programs, ADMIN, shown)
    assert f"the proxy sslh, and what carries that, TCP port 443 from {FAR}" in found


def test_ssh_from_this_host_itself_is_nobody_elses(
    tmp_path: Path, proc: Proc, programs: Programs
) -> None:
    proc.process(300, "ssh", 1, sockets=(32,))
    proc.socket(("127.0.0.1", 50000), ("127.0.0.1", 22), ESTABLISHED, inode=32)
    here = login("127.0.0.1", "127.0.0.1", "lo")
    assert findings(tmp_path, proc, programs, ADMIN, here) == []


@pytest.mark.parametrize(
    "text",
    ["", "[", "[1, null, {}]", '{"ifname": 1}', '[{"ifname": 1, "linkinfo": 2}]', "[" * 9999],
)
def test_odd_answers_tell_nothing(
    tmp_path: Path, proc: Proc, programs: Programs, text: str
) -> None:
    programs.said = dict.fromkeys(("ip", "bridge", "wg", "conntrack"), text)
    assert findings(tmp_path, proc, programs) == []


def test_without_iproute2_a_tun_device_is_still_followed(tmp_path: Path, proc: Proc) -> None:
    proc.process(300, "openvpn", 1, sockets=(31,))
    proc.serves_tun(300, "t0")
    proc.socket(("0.0.0.0", 1194), inode=31, kind="udp")
    (found,) = findings(tmp_path, proc, Programs())
    assert found.endswith("; host.udp_ports: add 1194")


def test_the_interface_is_that_of_all_routing_tables(proc: Proc, programs: Programs) -> None:
    programs.links(link("eth0"), link("t0", "wireguard"), link("blue", "vrf"))
    facts = NetworkFacts(programs)
    assert placed(login(interface="eth0"), facts, proc.root).interface == "t0"
    assert placed(login("127.0.0.1", "127.0.0.1", "lo"), facts, proc.root).interface == "lo"
    programs.links(link("eth5", master="blue", addresses=[OWN]), link("blue", "vrf"))
    programs.said["ip -j neighbour show to fe80::7"] = '[{"dev":"eth4","lladdr":"02::1"}]'
    facts = NetworkFacts(programs)
    assert placed(login(interface=None), facts, proc.root).interface == "blue"
    local = login("fe80::7", "fe80::1", None)
    assert placed(local, facts, proc.root).interface == "eth4"


def test_the_far_end_of_a_login_is_nobody_to_ban(
    monkeypatch: pytest.MonkeyPatch, proc: Proc, programs: Programs
) -> None:
    programs.links(link("t0", "gre", **ENDS), link("t1", "tun"), link("eth0"))
    proc.process(300, "ocserv", 1, sockets=(31, 32))
    proc.serves_tun(300, "t1")
    proc.socket((HERE, 443), inode=30)
    # Anybody may connect to a VPN server, also who ought to be banned.
    for number, client in ((31, "203.0.113.9"), (32, "203.0.113.8")):
        proc.socket((HERE, 443), (client, 50000), ESTABLISHED, inode=number)
    who = [login(), login("192.0.2.8", interface="t1")]
    found = passages(who, NetworkFacts(programs), proc.root)
    monkeypatch.setattr(lockout, "logged_in", lambda: (who, found, []))
    assert lockout.far_ends() == {ip_address(FAR): "the tunnel t0 (gre)"}
    assert f"{FAR}/32 (carries the tunnel t0 (gre))" in map(str, exempt_by_host())
