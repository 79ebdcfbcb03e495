"""Configurations of switches and firewalls become peers that are commented out, and nothing else.

The texts are written after the documentation that each reader names.
"""

from __future__ import annotations

import re
import time
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from sipfw.kernel.state import connections
from sipfw.monitor.gateways.entry import read_place
from sipfw.monitor.gateways.look import look_for_gateways
from sipfw.monitor.gateways.suggest import commented_peers, said, uncovered
from sipfw.policy.load import Request, load
from sipfw.policy.starter import starter_policy
from sipfw.ruleset.match import PortRange
from sipfw.saved.accepted_sources import accepted_sources

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.policy.model import Policy

_PJSIP = """\
; [old](!) is commented out
;-- [gone]
match=198.51.100.99
--;
[transport-udp]
type=transport
bind=0.0.0.0:5060
local_net=192.0.2.0/24
[trunk-a]
type=aor
contact=sip:secret-user:secret-word@203.0.113.10:5060
[trunk-a-identify]
type=identify
endpoint=trunk-a
match=203.0.113.11, 203.0.113.16/255.255.255.240 ; both
[reg-b]
type=registration
server_uri=sip:sip.carrier-b.example
client_uri=sip:1234@sip.carrier-b.example
[phone-7]
type=aor
max_contacts=1
"""
_SIP = """\
[general]
register => 2345:secret-word@192.0.2.50:5060/1234
[carrier-c](trunks)
host=192.0.2.51
[4001]
host=dynamic
"""
_FREESWITCH = """\
<include>
  <!-- <gateway name="example"><param name="proxy" value="198.51.100.99"/></gateway> -->
  <gateway name="carrier-d">
    <param name="username" value="cluecon"/>
    <param name="realm" value="sip.carrier-d.example"/>
    <param name="proxy" value="203.0.113.40:5080"/>
  </gateway>
  <gateway name="sip.carrier-e.example"/>
  <X-PRE-PROCESS cmd="include" data="more/*.xml"/>
</include>
"""
_ACL = """\
<configuration name="acl.conf"><network-lists>
  <list name="carriers" default="deny">
    <node type="allow" cidr="203.0.113.64/28"/><node type="deny" cidr="198.51.100.99/32"/>
    <node type="allow" domain="$${domain}"/>
  </list>
</network-lists></configuration>
"""
_JAIL = """\
[DEFAULT]
# ignoreip = 198.51.100.99
ignoreip = 127.0.0.1/8 ::1 203.0.113.80
           2001:db8::80
bantime = 600
[sshd]
enabled = true
"""
_SCRIPT = """\
#!/bin/sh
TRUSTED="203.0.113.100 203.0.113.101
203.0.113.102"
BLOCKED="198.51.100.99"
iptables -A INPUT -p udp -s 203.0.113.103 --dport 5060 -j ACCEPT
iptables -A INPUT -p tcp -s 198.51.100.99 --dport 22 -j ACCEPT
iptables -A INPUT ! -s 198.51.100.99 -j ACCEPT
iptables -A INPUT -s 198.51.100.99 -j DROP
iptables -A INPUT -s 0.0.0.0/0 -j ACCEPT
"""
_RULES = """\
*filter
-A INPUT -s 203.0.113.104/32 -m comment --comment "office of E" -j ACCEPT
-A INPUT -s 198.51.100.99/32 -m comment --comment "sipfw:peer.x#0badcafe" -j ACCEPT
COMMIT
"""
_FILES = {
    "etc/asterisk/pjsip.conf": (
        _PJSIP,
        {
            "trunk-a": {"203.0.113.10/32", "203.0.113.11/32", "203.0.113.16/28"},
            "reg-b": {"sip.carrier-b.example"},
        },
    ),
    "etc/asterisk/sip_additional.conf": (
        _SIP,
        {"register-192.0.2.50:5060": {"192.0.2.50/32"}, "carrier-c": {"192.0.2.51/32"}},
    ),
    "etc/freeswitch/sip_profiles/external/d.xml": (
        _FREESWITCH,
        {
            "carrier-d": {"203.0.113.40/32"},
            "sip.carrier-e.example": {"sip.carrier-e.example"},
        },
    ),
    "etc/freeswitch/autoload_configs/acl.conf.xml": (_ACL, {"carriers": {"203.0.113.64/28"}}),
    "etc/kamailio/dispatcher.list": (
        "# setid destination\n1 sip:203.0.113.48:5060 0 0 duid=a\n1 sip:[2001:db8::70] 0\n",
        {"dispatcher-1": {"203.0.113.48/32", "2001:db8::70/128"}},
    ),
    "etc/kamailio/address.list": (
        "1 203.0.113.88 29 5060 carrier-f\n2 203.0.113.49\n",
        {"carrier-f": {"203.0.113.88/29"}, "permissions-2": {"203.0.113.49/32"}},
    ),
    "etc/fail2ban/jail.local": (
        _JAIL,
        {"fail2ban-ignoreip": {"203.0.113.80/32", "2001:db8::80/128"}},
    ),
    "root/firewall.sh": (
        _SCRIPT,
        {
            "TRUSTED": {"203.0.113.100/32", "203.0.113.101/32", "203.0.113.102/32"},
            "accepted-source": {"203.0.113.103/32"},
        },
    ),
    "etc/iptables/rules.v4": (_RULES, {"office of E": {"203.0.113.104/32"}}),
}


def _write(root: Path, name: str, text: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _uncommented(lines: list[str], tmp_path: Path) -> Policy:
    """Do with the starter policy what it says is to be done."""
    text = starter_policy(
        profile="default",
        switch=None,
        admin_networks=[],
        udp_ports=[],
        tcp_ports=[],
        interfaces=[],
        found=lines,
    )
    assert load(Request(_write(tmp_path, "as-written.yaml", text))).policy.trusted_peers == ()
    block = "\n".join(lines)
    assert block in text
    text = text.replace(block, re.sub(r"(?m)^#", "", block)).replace(
        "trusted_peers: []", "trusted_peers:"
    )
    return load(Request(_write(tmp_path, "uncommented.yaml", text))).policy


@pytest.mark.parametrize("name", list(_FILES))
def test_who_is_named(name: str, tmp_path: Path) -> None:
    text, expected = _FILES[name]
    path = _write(tmp_path, name, text)
    found, notes = look_for_gateways(tmp_path)
    assert notes == []
    named: dict[str, set[str]] = {}
    for item in found:
        named.setdefault(item.name, set()).update(map(str, item.places))
        assert item.where.startswith(f"{path}:")
    assert named == expected


def test_the_line_is_where_it_stands(tmp_path: Path) -> None:
    _write(tmp_path, "etc/asterisk/pjsip.conf", _PJSIP)
    found, _ = look_for_gateways(tmp_path)
    lines = _PJSIP.splitlines()
    for item in found:
        line = lines[int(item.where.rpartition(":")[2]) - 1]
        assert all(str(place).split("/")[0] in line for place in item.places), item


def test_all_of_them_are_peers_once_uncommented(tmp_path: Path) -> None:
    for name, (text, _) in _FILES.items():
        _write(tmp_path, name, text)
    lines = commented_peers(look_for_gateways(tmp_path)[0])
    assert "secret" not in "\n".join(lines)
    policy = _uncommented(lines, tmp_path)
    wanted = {
        place for _, named in _FILES.values() for places in named.values() for place in places
    }
    assert {str(place) for peer in policy.trusted_peers for place in peer.signalling} == wanted
    assert list(uncovered(policy, look_for_gateways(tmp_path)[0], [])) == []


def test_what_overlaps_is_told_and_written_once(tmp_path: Path) -> None:
    text = "[a]\nhost=203.0.113.9\n[b]\nhost=203.0.113.0/28\n[c]\nhost=203.0.113.9\n"
    _write(tmp_path, "etc/asterisk/sip.conf", text)
    lines = commented_peers(look_for_gateways(tmp_path)[0])
    (peer,) = _uncommented(lines, tmp_path).trusted_peers
    assert (peer.name, list(map(str, peer.signalling))) == ("a", ["203.0.113.9/32"])
    assert any("203.0.113.0/28, too" in line for line in lines)


def test_hostile_names_stay_in_their_comment(tmp_path: Path) -> None:
    names = ['x"]}\x1b[31m', "\u2028host: {}", "no", "123", "a" * 90, "a" * 91, "'", "\x85x: y"]
    text = "".join(f"[{name}]\nhost=203.0.113.{at}\n" for at, name in enumerate(names, 1))
    _write(tmp_path, "etc/asterisk/sip\x1b[2J\n.conf", text)
    found, notes = look_for_gateways(tmp_path)
    lines = commented_peers(found)
    assert notes == []
    assert all(line.isprintable() and line.startswith("#") for line in lines)
    assert len(_uncommented(lines, tmp_path).trusted_peers) == len(found) > 5


def test_what_cannot_be_read_is_one_line_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = _write(tmp_path, "etc/asterisk/sip.conf", "[a]\nhost=203.0.113.1\n").parent
    (folder / "pjsip.conf").symlink_to("pjsip.conf")
    _write(folder, "pjsip.aor.conf", b";" * (1 << 20) + b"\n")
    (folder / "pjsip.endpoint.conf").mkdir()
    _write(folder, "sip_latin.conf", b"[caf\xe9]\nhost=203.0.113.2\n")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><gateway name="&b;.example"/>'
    _write(tmp_path, "etc/freeswitch/sip_profiles/bomb.xml", bomb)
    _write(tmp_path, "etc/freeswitch/sip_profiles/half.xml", "<include><gateway")
    found, notes = look_for_gateways(tmp_path)
    assert [str(item.places[0]) for item in found] == ["203.0.113.1/32", "203.0.113.2/32"]
    said_of = "\n".join(map(str, notes))
    assert len(notes) == len(said_of.splitlines()) == 5
    for part in ("symbolic links", "larger than", "is not a file", "DOCTYPE", "no XML"):
        assert part in said_of


def test_a_long_list_ends_the_search_with_one_line(tmp_path: Path) -> None:
    text = "".join(f"[t{at}]\nhost=2001:db8::{at:x}\n" for at in range(2500))
    _write(tmp_path, "etc/asterisk/pjsip.conf", text)
    _write(tmp_path, "etc/asterisk/sip.conf", text)
    found, notes = look_for_gateways(tmp_path)
    assert len(found) == 2000
    assert ["more than 2,000 addresses" in str(note) for note in notes] == [True]
    assert f"{tmp_path}/etc/asterisk/pjsip.conf:4002" in str(notes[0])


@pytest.mark.parametrize("text", ["PEER=(\n", "PEER=203.0.113.1\n", 'PEER="', "X=' -s \\"])
def test_a_hostile_script_takes_no_longer_than_another(text: str) -> None:
    began = time.process_time()
    sum(1 for _ in accepted_sources(text * ((1 << 20) // len(text))))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0",
        "::1",
        "224.0.0.5",
        "dynamic",
        "$${domain}",
        "127.0.0.1:5060",
        "a" * 9999,
        "[",
        "",
    ],
)
def test_what_is_no_gateway(text: str) -> None:
    assert read_place(text) is None


def test_only_what_no_peer_covers_is_said(tmp_path: Path) -> None:
    hosts = ("203.0.113.10", "198.51.100.7", "192.0.2.9", "sip.a.example", "192.0.2.200")
    text = "".join(f"[t{at}]\nhost={host}\n" for at, host in enumerate(hosts))
    _write(tmp_path, "etc/asterisk/sip.conf", text)
    policy = load(
        Request(
            _write(
                tmp_path,
                "policy.yaml",
                "admin: {networks: [198.51.100.7]}\n"
                "trusted_peers: [{name: a, signalling: [203.0.113.0/24, sip.a.example]}]\n",
            )
        )
    ).policy
    found, _ = look_for_gateways(tmp_path)
    lacking = uncovered(policy, found, [ip_network("192.0.2.9")])
    assert [item.name for item in lacking] == ["t4"]
    assert "192.0.2.200" in said(lacking[0])


def test_who_talks_sip_is_read_in_both_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flow(source: str, sport: int, target: str, dport: int, more: str = "[ASSURED] ") -> str:
        return (
            f"ipv4     2 udp      17 28 src={source} dst={target} sport={sport} dport={dport} "
            f"src={target} dst={source} sport={dport} dport={sport} {more}mark=0 use=1\n"
        )

    text = (
        flow("203.0.113.1", 5060, "192.0.2.1", 5060)
        + flow("192.0.2.1", 5060, "203.0.113.2", 5090)
        + flow("203.0.113.3", 5060, "192.0.2.1", 5060, "[UNREPLIED] ")
        + flow("203.0.113.4", 9999, "192.0.2.1", 53)
        + flow("203.0.113.5", 5060, "203.0.113.6", 5060)
    )
    _write(tmp_path, "nf_conntrack", text)
    own = [ip_address("192.0.2.1")]
    monkeypatch.setattr(connections, "_COUNT", _write(tmp_path, "count", "5\n"))
    found = connections.sip_talkers(own, [PortRange(5060, 5060)], None, tmp_path)  # type: ignore[arg-type]
    assert list(map(str, found or [])) == ["203.0.113.1", "203.0.113.2"]
