"""What leads another port to SIP: every spelling of iptables and nft, IPVS, proxies, listeners."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from doctor_host import Fake, saved

from sipfw.compare.expected import expect, from_json, to_json
from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.applied import Applied, write_applied
from sipfw.lower.iptables import lower
from sipfw.monitor.doctor.findings import DiagnosisState
from sipfw.monitor.doctor.ways_past import before_apply, find_ways, port_moves
from sipfw.policy.load import Request, load
from sipfw.ruleset.doors import doors_of

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

# Set by nobody, so that only what a rule says can be found.
_REQUEST = ("signalling.udp=[5060]", "signalling.tcp=[5060]", "signalling.tls=[5061]")


def ruleset(*settings: str) -> Ruleset:
    return compile_policy(load(Request(profile="wholesale", settings=(*_REQUEST, *settings))))


DOORS = doors_of(ruleset())


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def told(fake: Fake) -> list[str]:
    """Return what is said of each way past: transport and ports."""
    return [
        way.sentence.partition(" leads ")[2].partition(" past ")[0]
        for way in find_ways(fake.host(), DOORS)
    ]


IPTABLES = {
    "-p udp -m udp --dport 7070 -j REDIRECT --to-ports 5060": ["udp port 7070 to SIP port 5060"],
    "-p tcp -m tcp --dport 7070 -j REDIRECT --to-ports 5060-5061": [
        "tcp port 7070 to SIP ports 5060-5061"
    ],
    "-p udp -m multiport --dports 5060,7070:7072,9000 -j REDIRECT --to-ports 5060": [
        "udp ports 7070-7072, 9000 to SIP port 5060"
    ],
    "-p udp -j REDIRECT --to-ports 5060": ["udp every other port to SIP port 5060"],
    "-p udp -m udp ! --dport 53 -j REDIRECT --to-ports 5060 --random": [
        "udp every other port to SIP port 5060"
    ],
    "! -p tcp -m set --match-set ports dst -j DNAT --to-destination :5060": [
        "udp every other port to SIP port 5060"
    ],
    "-d 198.51.100.1/32 -p udp -m udp --dport 7070 -j DNAT --to-destination 127.0.0.1:5060": [
        "udp port 7070 to SIP port 5060"
    ],
    "-p udp -m udp --dport 7000:7010 -j DNAT --to-destination 192.0.2.1:5058-5070/7000": [
        "udp ports 7000-7010 to SIP port 5060"
    ],
    "-p tcp -m tcp --dport 443 -j DNAT --to-destination :5061": ["tcp port 443 to SIP port 5061"],
    # The port stays, is none of SIP's, is listed, or the packet comes over loopback.
    "-p udp -m udp --dport 7070 -j REDIRECT": [],
    "-p udp -m udp --dport 7070 -j REDIRECT --to-ports 7071": [],
    "-p udp -m udp --dport 5060 -j REDIRECT --to-ports 5060": [],
    "-p tcp -m tcp --dport 5061 -j REDIRECT --to-ports 5060": [],
    "-i lo -p udp -m udp --dport 7070 -j REDIRECT --to-ports 5060": [],
    "-p udp -m udp --dport 7070 -j DNAT --to-destination 192.0.2.1": [],
    '-p udp -m comment --comment "--dport 7070 -j REDIRECT --to-ports 5060" -j ACCEPT': [],
    "-p udp -m udp --dport 7070 -j DNAT --to-destination nonsense:5060": [],
}


@pytest.mark.parametrize("rule", IPTABLES)
@pytest.mark.parametrize("flavour", ["legacy", "nft"])
def test_nat_of_iptables(flavour: str, rule: str, fake: Fake) -> None:
    listing = saved(f"-A PREROUTING {rule}", table="nat")
    if flavour == "legacy":
        fake.legacy(listing)
    else:
        fake.iptables_nft(listing)
    assert told(fake) == IPTABLES[rule]


def test_chains_of_iptables_keep_what_led_to_them(fake: Fake) -> None:
    rules = (
        "-A PREROUTING -p udp -m udp --dport 5060 -j SAFE",
        "-A PREROUTING -p udp -m udp --dport 7070:7079 -j OPEN",
        "-A SAFE -j DNAT --to-destination 127.0.0.1:5060",
        "-A OPEN -m udp --dport 7075:7090 -j DEEPER",
        "-A DEEPER -j REDIRECT --to-ports 5060",
        "-A DEEPER -j OPEN",
        "-A UNUSED -p udp -j REDIRECT --to-ports 5060",
    )
    fake.legacy(saved(*rules, table="nat", chains="SAFE OPEN DEEPER UNUSED"))
    assert told(fake) == ["udp ports 7075-7079 to SIP port 5060"]


def test_tproxy_and_ipv6(fake: Fake) -> None:
    tproxy = "-A PREROUTING -p udp -m udp --dport 7070 -j TPROXY --on-port 5060 --on-ip 0.0.0.0"
    six = "-A PREROUTING -p udp -m udp --dport 7071 -j DNAT --to-destination [2001:db8::1]:5060"
    mangle = saved(tproxy, table="mangle").replace(":INPUT", ":PREROUTING")
    fake.legacy(mangle, saved(six, table="nat"))
    assert told(fake) == ["udp port 7070 to SIP port 5060", "udp port 7071 to SIP port 5060"]


NFT = {
    "udp dport 7070 redirect to :5060": ["udp port 7070 to SIP port 5060"],
    'iifname "eth0" udp dport { 7070-7072, 9000 } counter packets 3 bytes 9 redirect to :5060': [
        "udp ports 7070-7072, 9000 to SIP port 5060"
    ],
    "meta l4proto { tcp, udp } th dport 7070 redirect to :5060": [
        "udp port 7070 to SIP port 5060",
        "tcp port 7070 to SIP port 5060",
    ],
    "udp dport 7070 dnat to 127.0.0.1:5060": ["udp port 7070 to SIP port 5060"],
    "udp dport 7070 dnat ip to 127.0.0.1:5060-5069 persistent": ["udp port 7070 to SIP port 5060"],
    "udp dport 7070 dnat ip6 to [2001:db8::1]:5060": ["udp port 7070 to SIP port 5060"],
    "udp dport 7070 dnat to :5060": ["udp port 7070 to SIP port 5060"],
    "udp dport != 5061 redirect to :5060": ["udp every other port to SIP port 5060"],
    "udp dport @named redirect to :5060": ["udp ports 7072-7080 to SIP port 5060"],
    "udp dport @gone redirect to :5060": ["udp every other port to SIP port 5060"],
    "ip daddr . udp dport { 192.0.2.1 . 7070 } redirect to :5060": [
        "udp every other port to SIP port 5060"
    ],
    "meta l4proto udp ct original proto-dst 7070 redirect to :5060": [
        "udp port 7070 to SIP port 5060"
    ],
    "meta l4proto udp redirect to :udp dport map { 7070 : 5060, 7071 : 80 }": [
        "udp port 7070 to SIP port 5060"
    ],
    "meta l4proto udp redirect to :udp dport map @m": ["udp port 7073 to SIP port 5060"],
    "dnat ip to udp dport map { 7070 : 127.0.0.1 . 5060, 80 : 192.0.2.1 . 80 }": [
        "udp port 7070 to SIP port 5060"
    ],
    "udp dport 7001 dnat to 127.0.0.1:numgen random mod 2 map { 0 : 5060, 1 : 5062 }": [
        "udp port 7001 to SIP port 5060"
    ],
    "udp dport 7070 tproxy to :5060": ["udp port 7070 to SIP port 5060"],
    "udp dport 7070 udp dport set 5060": ["udp port 7070 to SIP port 5060"],
    "udp dport 7070 udp dport set udp dport map { 7070 : 5060 }": [
        "udp port 7070 to SIP port 5060"
    ],
    "udp dport vmap { 5060 : jump sip, 7074 : goto sip }": ["udp port 7074 to SIP port 5060"],
    "udp dport 7075 jump sip": ["udp port 7075 to SIP port 5060"],
    "udp dport 5060 redirect to :5060": [],
    "udp dport 7070 redirect to :7071": [],
    "udp dport 7070 redirect": [],
    "udp dport 7070 dnat to 2001:db8::5060": [],
    "tcp dport 7070 redirect to :5062": [],
    'iifname "lo" udp dport 7070 redirect to :5060': [],
    'udp dport 7070 accept comment "udp dport 7070 redirect to :5060"': [],
}


@pytest.mark.parametrize("rule", NFT)
@pytest.mark.parametrize(
    "hook", ["type nat hook prerouting priority dstnat", "type filter hook input priority -10"]
)
def test_rules_of_nft(rule: str, hook: str, fake: Fake) -> None:
    fake.nft(
        f"table inet anybody {{\n\tchain pre {{\n\t\t{hook}; policy accept;\n\t\t{rule}\n\t}}\n\n"
        "\tchain sip {\n\t\tmeta l4proto udp redirect to :5060\n\t}\n}\n"
    )
    for name, members in (("named", "7072-7080"), ("m", "7073 : 5060,\n 90 : 91")):
        kind = "set" if name == "named" else "map"
        answer = f"table inet anybody {{\n\t{kind} {name} {{\n\t\telements = {{ {members} }}\n"
        fake.programs.answers[f"nft list {kind} inet anybody {name}"] = answer
    fake.programs.failing["nft list set inet anybody m"] = "No such file or directory"
    for kind in ("set", "map"):
        fake.programs.failing[f"nft list {kind} inet anybody gone"] = "No such file or directory"
    assert told(fake) == NFT[rule]


def test_one_rule_in_two_listings_is_one_way(fake: Fake) -> None:
    fake.iptables_nft(saved(f"-A PREROUTING {next(iter(IPTABLES))}", table="nat"))
    hook = "type nat hook prerouting priority dstnat; policy accept;"
    rule = "udp dport 7070 redirect to :5060"
    fake.nft(f"table ip nat {{\n\tchain PREROUTING {{\n\t\t{hook}\n\t\t{rule}\n\t}}\n}}\n")
    assert len(told(fake)) == 1


def test_what_leaves_for_the_internet_is_the_customers_own(fake: Fake) -> None:
    for address in ("203.0.113.9", "192.0.2.9"):
        fake.file("proc/net/route", ROUTES)
        rule = f"-A PREROUTING -p udp --dport 7070 -j DNAT --to-destination {address}:5060"
        fake.legacy(saved(rule, table="nat"))
        assert bool(told(fake)) == (address == "192.0.2.9")


ROUTES = (
    "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    "eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n"
    "docker0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
)


def test_ipvs(fake: Fake) -> None:
    fake.file(
        "proc/net/ip_vs",
        "IP Virtual Server version 1.2.1 (size=4096)\n"
        "Prot LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
        "UDP  C6336401:1B9E rr  \n"
        "  -> C000020A:13C4      Masq    1      0          0         \n"
        "TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:01BB wlc  \n"
        "  -> [2001:0db8:0000:0000:0000:0000:0000:0002]:13C5      Route   1      0          0   \n"
        "FWM  00000007 rr  \n"
        "  -> C000020A:0000      Route   1      0          0         \n"
        "UDP  C6336401:13C4 rr  \n"
        "  -> C000020A:13C4      Masq    1      0          0         \n",
    )
    assert told(fake) == [
        "udp port 7070 to SIP port 5060",
        "udp every other port to SIP port 5060",
        "tcp port 443 to SIP port 5061",
        "tcp every other port to SIP ports 5060-5061",
    ]


def test_a_proxy_of_docker(fake: Fake) -> None:
    words = (
        "/usr/bin/docker-proxy -proto udp -host-ip 0.0.0.0 -host-port 7070 -container-ip "
        "192.0.2.10 -container-port 5060"
    )
    fake.file("proc/77/comm", "docker-proxy\n")
    fake.file("proc/77/cmdline", "\0".join(words.split()) + "\0")
    assert told(fake) == ["udp port 7070 to SIP port 5060"]
    fake.file("proc/77/cmdline", b"docker-proxy\0-proto\0udp\0-host-port\0\xff\0")
    assert told(fake) == []


def socket_line(port: int, inode: int, address: str = "00000000") -> str:
    return f" 1: {address}:{port:04X} 00000000:0000 07 0:0 00:0 0 0 0 {inode} 2 0 0\n"


def test_other_ports_of_the_switch(fake: Fake) -> None:
    heads = "sl local remote st queues timer retrnsmt uid timeout inode\n"
    ports = {11: 5060, 12: 5070, 13: 4569, 14: 11000, 15: 40000, 16: 5072}
    lines = [socket_line(port, inode) for inode, port in ports.items()]
    lines.append(socket_line(5074, 17, "0100007F"))
    fake.file("proc/net/udp", heads + "".join(lines))
    fake.file("proc/9/comm", "asterisk\n")
    for number, inode in enumerate((11, 12, 13, 14, 15, 17)):
        fake.link(f"proc/9/fd/{number}", f"socket:[{inode}]")
    fake.file("proc/10/comm", "other\n")
    fake.link("proc/10/fd/1", "socket:[16]")
    (said,) = before_apply(fake.host(), ruleset())
    assert "asterisk listens on udp port 5070 as on SIP port 5060" in str(said)
    assert "add 5070 to signalling.udp" in str(said)
    assert before_apply(fake.host(), ruleset("signalling.udp=[5060,5070]")) == []
    assert port_moves(fake.host()).state is DiagnosisState.WARNING


def test_the_page_of_doctor_goes_by_what_is_applied(fake: Fake) -> None:
    fake.legacy(saved(f"-A PREROUTING {next(iter(IPTABLES))}", table="nat"))
    found = port_moves(fake.host())
    assert found.state is DiagnosisState.PROBLEM
    assert "iptables-legacy nat PREROUTING leads udp port 7070" in found.sentence
    assert "add 7070 to signalling.udp and apply, or delete the rule" in found.sentence
    wider = ruleset("signalling.udp=[5060,7070]")
    expectation = expect(wider, lower(wider))
    assert from_json(json.loads(json.dumps(to_json(expectation)))) == expectation
    (fake.folder / "root/var/lib/sipfw").mkdir(parents=True)
    write_applied(fake.host().layout, Applied(expectation, "policy.yaml"))
    assert port_moves(fake.host()).state is DiagnosisState.OK


def test_nobody_but_root_is_asked(fake: Fake) -> None:
    assert before_apply(fake.host(is_root=False), ruleset()) == []
