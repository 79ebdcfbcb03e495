"""Rules that other programs have saved while sipfw was live are in force after the next boot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from boot import Boots
from guarded_switch import SCAN
from shared_host import SharedHost

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = {
    "profile": "wholesale",
    "admin": {"networks": ["192.0.2.0/28"]},
    "trusted_peers": [{"name": "a", "signalling": ["203.0.113.10", "2001:db8:5::/64"]}],
    "conntrack": {"max": None},
}
OTHERS = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:own-chain - [0:0]
-A INPUT -p tcp -m tcp --dport 8443 -m conntrack --ctstate NEW -j own-chain
-A INPUT -p udp -m udp --dport 9999 -j DROP
-A own-chain -s SOURCE -j DROP
COMMIT
"""
OTHERS_NFT = """\
table inet own {
    set walled { type ipv4_addr; elements = { 198.51.100.77 } }
    chain input {
        type filter hook input priority 5; policy accept;
        ip saddr @walled counter drop
        udp dport 9998 counter drop comment "not sipfw: mine"
    }
}
"""
INVITE = b"INVITE sip:1@203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.10\r\n\r\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str], tuple[Lab, Boots]]]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    labs: list[Lab] = []

    def make(backend: str) -> tuple[Lab, Boots]:
        lab = Lab().__enter__()
        labs.append(lab)
        host = SharedHost(lab.switch, backend, tmp_path)
        boots = Boots(host)
        for command in ("iptables", "ip6tables"):
            source = "198.51.100.77/32" if command == "iptables" else "2001:db8:66::77/128"
            host.tool(f"{command}-restore", text=OTHERS.replace("SOURCE", source))
        if backend != "iptables-legacy":
            host.run("nft", "-f", "-", text=OTHERS_NFT)
        host.apply(POLICY, "--yes")
        host.must("ban", "198.51.100.99", "--for", "2h")
        return lab, boots

    yield make
    for lab in labs:
        lab.__exit__(None, None, None)


def _started(boots: Boots) -> None:
    """Start the units in their order: ours, netfilter-persistent, one that loads a table of its
    own, and ours again.
    """
    boots.start_unit("sipfw-sets")
    assert boots.start_persistent()
    if boots.host.flavour == "nft":
        boots.host.run("nft", "-f", "-", text=OTHERS_NFT)
    boots.start_unit("sipfw")


def _guarded(lab: Lab, boots: Boots) -> None:
    """Send what must die and what must arrive; ask sipfw and the other side."""
    sink, closed = lab.switch.udp_sink(5060), lab.switch.udp_sink(9999)
    lab.attacker.send_udp(lab.switch.address_for(lab.attacker), 5060, [SCAN] * 3)
    lab.attacker.send_udp(lab.switch.address_for(lab.attacker), 9999, b"for nobody")
    lab.carrier.send_udp(lab.switch.address_for(lab.carrier), 5060, INVITE)
    sink.wait(1)
    assert [item.payload for item in sink.arrivals()] == [INVITE]
    assert closed.arrivals() == []
    boots.host.must("verify")
    assert "198.51.100.99" in boots.host.sipfw("bans").stdout
    lab.reset()


@pytest.mark.parametrize("ipsets", [False, True], ids=["rules", "rules and ipsets"])
@pytest.mark.parametrize("backend", ["iptables-legacy", "iptables-nft"])
def test_a_saved_iptables_file_loads(
    made: Callable[[str], tuple[Lab, Boots]], backend: str, ipsets: bool
) -> None:
    lab, boots = made(backend)
    host = boots.host
    others = boots.others()
    boots.save_persistent(ipsets=ipsets)
    boots.enable("netfilter-persistent")
    if not ipsets:
        told = host.sipfw("saved")
        assert told.returncode == 1
        assert f"{boots.etc}/iptables/rules.v4:" in told.stdout
        assert "fix: sipfw install-service" in told.stdout
        # What today's boot comes to.
        boots.power_cut()
        assert not boots.start_persistent()
        assert boots.others() != others
    host.must("install-service")
    boots.power_cut()
    _started(boots)
    assert boots.others() == others
    _guarded(lab, boots)
    assert host.sipfw("saved").returncode == 0
    # A file that an older firewall of ours was saved in: nothing of it stays, nothing is doubled.
    host.apply({**POLICY, "admin": {"networks": []}, "bans": {"size": 4096}}, "--yes")
    boots.power_cut()
    _started(boots)
    assert boots.others() == others
    host.must("verify")
    assert host.tool("iptables-save").count("-j SIPFW_PREROUTING") == 1


@pytest.mark.parametrize("backend", ["iptables-nft", "nftables"])
def test_a_file_of_nft_list_ruleset_loads(
    made: Callable[[str], tuple[Lab, Boots]], backend: str
) -> None:
    lab, boots = made(backend)
    host = boots.host
    others = boots.others()
    before = boots.save_nft("#!/usr/sbin/nft -f\n\nflush ruleset\n\n").read_text()
    boots.enable("nftables")
    told = host.sipfw("doctor")
    assert told.returncode == 1
    assert f"{boots.etc}/nftables.conf:" in told.stdout
    host.must("install-service")
    boots.power_cut()
    boots.start_unit("sipfw-sets")
    assert not boots.start_nft()
    said = boots.start_unit("sipfw")
    assert "nftables.conf: its service could not load it; loaded from here: " in said
    assert boots.others() == others
    _guarded(lab, boots)
    # A unit that is started again loads nothing a second time.
    boots.start_unit("sipfw")
    assert boots.others() == others
    assert (boots.etc / "nftables.conf").read_text() == before


def test_a_file_that_is_cleaned_loads_by_itself(
    made: Callable[[str], tuple[Lab, Boots]],
) -> None:
    _, boots = made("nftables")
    host = boots.host
    others = boots.others()
    main = boots.save_nft()
    inner = boots.etc / "nftables.d/dump.nft"
    inner.parent.mkdir()
    main.rename(inner)
    main.write_text(f'flush ruleset\ninclude "{inner.parent}/*.nft"\n')
    inner.chmod(0o640)
    boots.enable("nftables")
    assert host.sipfw("saved").returncode == 1
    host.must("remove", "--yes")
    # Removing sipfw must not leave a file behind that the next boot fails on, unsaid.
    told = host.sipfw("saved").stdout
    assert f"fix: sipfw saved --clean {inner}" in told
    host.must("saved", "--clean", str(inner))
    assert inner.stat().st_mode & 0o777 == 0o640
    boots.power_cut()
    assert boots.start_nft()
    assert boots.others() == others
    assert host.sipfw("saved").returncode == 0
    assert len(list(inner.parent.glob("dump.nft.with-sipfw-*"))) == 1


def test_old_rules_in_another_packet_filter_do_not_judge_twice(
    made: Callable[[str], tuple[Lab, Boots]],
) -> None:
    lab, boots = made("iptables-nft")
    host = boots.host
    others = boots.others()
    boots.save_persistent()
    boots.enable("netfilter-persistent")
    host.must("remove", "--yes")
    moved = SharedHost(host.node, "nftables", host.folder)
    moved.apply(POLICY, "--yes")
    moved.must("ban", "198.51.100.99", "--for", "2h")
    moved.must("install-service")
    boots.power_cut()
    _started(boots)
    assert "SIPFW_" not in host.tool("iptables-save")
    assert host.run("ipset", "list", "-n") == ""
    assert boots.others() == others
    _guarded(lab, boots)
