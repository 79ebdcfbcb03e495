"""Doctor: who else changes SIP on this host, right and wrong."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from doctor_host import Fake, saved

from sipfw.compare.expected import expect
from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.applied import Applied, write_applied
from sipfw.deploy.generations import Content, write_generation
from sipfw.lower.iptables import lower
from sipfw.monitor.doctor import checks_neighbours, containers
from sipfw.monitor.doctor.checks_alg import sip_alg
from sipfw.monitor.doctor.containers import unnamed_containers
from sipfw.monitor.doctor.findings import CannotTellError, DiagnosisState
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path

HELPER_NFT = """\
table inet firewalld {
	ct helper helper-sip-udp {
		type "sip" protocol udp
		l3proto inet
	}

	chain filter_IN_public_allow {
		udp dport 5060 ct state new accept
		udp dport 5060 ct helper set "helper-sip-udp"
	}
}
"""
ZONE = '<zone><service name="ssh"/><service name="sip"/></zone>'


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_no_helper(fake: Fake) -> None:
    fake.setting("net/netfilter/nf_conntrack_helper", 0)
    assert sip_alg(fake.host()).state is DiagnosisState.OK


def test_the_kernel_attaches_the_helper_by_itself(fake: Fake) -> None:
    fake.setting("net/netfilter/nf_conntrack_helper", 1)
    assert sip_alg(fake.host()).state is DiagnosisState.WARNING
    fake.file("proc/modules", "nf_conntrack_sip 49152 1 nf_nat_sip, Live 0x0000000000000000\n")
    found = sip_alg(fake.host())
    assert found.state is DiagnosisState.PROBLEM
    assert found.fix is not None
    assert found.fix.startswith("sysctl -w net.netfilter.nf_conntrack_helper=0")


def test_a_loaded_module_that_nothing_uses(fake: Fake) -> None:
    fake.file("proc/modules", "nf_nat_sip 20480 0\nnf_conntrack_sip 49152 1 nf_nat_sip\n")
    found = sip_alg(fake.host())
    assert (found.state, found.fix) == (
        DiagnosisState.WARNING,
        "modprobe -r nf_nat_sip nf_conntrack_sip",
    )


@pytest.mark.parametrize("flavour", ["legacy", "nft"])
def test_a_rule_of_iptables_attaches_the_helper(flavour: str, fake: Fake) -> None:
    rule = '-A PREROUTING -p udp -m comment --comment "a $(id) b" -j CT --helper sip'
    listing = saved(rule, table="raw")
    if flavour == "legacy":
        fake.legacy(listing)
    else:
        fake.iptables_nft(listing)
    found = sip_alg(fake.host())
    assert found.state is DiagnosisState.PROBLEM
    assert found.fix is not None
    # Whoever pastes the command must not run what stands in a comment.
    words = [f"iptables-{flavour}", "-t", "raw", "-D", "PREROUTING", "-p", "udp", "-m", "comment"]
    assert shlex.split(found.fix)[:9] == words
    assert "'a $(id) b'" in found.fix


@pytest.mark.parametrize("target", ["CT --helper ftp", "CT --notrack", "ACCEPT"])
def test_other_rules_in_raw_are_no_helper(target: str, fake: Fake) -> None:
    comment = '-m comment --comment "-j CT --helper sip"'
    fake.legacy(saved(f"-A PREROUTING -p udp {comment} -j {target}", table="raw"))
    assert sip_alg(fake.host()).state is DiagnosisState.OK


def test_a_rule_of_nft_attaches_the_helper(fake: Fake) -> None:
    fake.nft(HELPER_NFT)
    found = sip_alg(fake.host())
    assert found.state is DiagnosisState.PROBLEM
    assert found.fix == "nft -a list chain inet firewalld filter_IN_public_allow"


@pytest.mark.parametrize(
    ("old", "new"), [('type "sip"', 'type "tftp"'), ("ct helper set", "comment")]
)
def test_a_helper_object_that_no_rule_attaches(old: str, new: str, fake: Fake) -> None:
    fake.nft(HELPER_NFT.replace(old, new))
    assert sip_alg(fake.host()).state is DiagnosisState.OK


def test_firewalld_brings_the_helper(fake: Fake) -> None:
    fake.file("root/etc/firewalld/zones/public.xml", ZONE)
    found = sip_alg(fake.host())
    assert found.state is DiagnosisState.WARNING
    assert found.fix is not None
    assert "--zone=public --remove-service=sip" in found.fix
    fake.nft(HELPER_NFT)
    live = sip_alg(fake.host())
    assert (live.state, live.fix) == (DiagnosisState.PROBLEM, found.fix)
    assert "may be live" in sip_alg(fake.host(is_root=False)).sentence


@pytest.mark.parametrize(
    ("zone", "service"),
    [
        ('<zone><service name="ssh"/></zone>', None),
        ('<zone><!-- <service name="sip"/> --></zone>', None),
        (ZONE, '<service><port port="5060" protocol="udp"/></service>'),
        (ZONE, '<service><!-- <helper name="sip"/> --></service>'),
    ],
)
def test_firewalld_without_the_helper(zone: str, service: str | None, fake: Fake) -> None:
    fake.file("root/etc/firewalld/zones/public.xml", zone)
    fake.file("root/usr/lib/firewalld/zones/public.xml", ZONE)
    fake.file("root/usr/lib/firewalld/services/sip.xml", '<helper name="sip"/>')
    if service is not None:
        fake.file("root/etc/firewalld/services/sip.xml", service)
    assert sip_alg(fake.host()).state is DiagnosisState.OK


def test_another_service_may_bring_it(fake: Fake) -> None:
    fake.file("root/etc/firewalld/zones/dmz.xml", "<zone><service name='phones'/></zone>")
    fake.file("root/etc/firewalld/services/phones.xml", "<service><helper name='sip'/></service>")
    assert "service phones" in sip_alg(fake.host()).sentence


def test_without_root_the_rules_are_unknown(fake: Fake) -> None:
    found = sip_alg(fake.host(is_root=False))
    assert found.state is DiagnosisState.UNKNOWN
    assert "use sudo" in found.sentence


def test_no_freepbx(fake: Fake) -> None:
    assert checks_neighbours.freepbx(fake.host()).sentence == "no FreePBX"
    fake.file("root/etc/asterisk/sip.conf")
    assert checks_neighbours.freepbx(fake.host()).state is DiagnosisState.OK


def test_freepbx_flushes_at_its_start(fake: Fake) -> None:
    fake.file("root/var/www/html/admin/modules/firewall/module.xml")
    assert checks_neighbours.freepbx(fake.host()).state is DiagnosisState.WARNING
    fake.legacy(saved("-A INPUT -j fpbxfirewall", chains="fpbxfirewall"))
    found = checks_neighbours.freepbx(fake.host())
    assert (found.state, found.fix) == (
        DiagnosisState.PROBLEM,
        "fwconsole ma uninstall firewall && fwconsole ma delete firewall",
    )
    assert checks_neighbours.freepbx(fake.host(is_root=False)).state is DiagnosisState.WARNING


def test_fail2ban_is_no_fault(fake: Fake) -> None:
    silent = "does not act on SIP ports"
    ssh = "-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd"
    fake.legacy(saved(ssh, chains="f2b-sshd"))
    assert checks_neighbours.fail2ban(fake.host()).sentence == silent
    rule = "-A INPUT -p udp -m multiport --dports 5060,5061 -j f2b-asterisk-udp"
    fake.legacy(saved(ssh, rule, chains="f2b-sshd f2b-asterisk-udp"))
    found = checks_neighbours.fail2ban(fake.host())
    assert found.state is DiagnosisState.OK
    assert "(f2b-asterisk-udp)" in found.sentence


def test_fail2ban_by_its_files(fake: Fake) -> None:
    fake.file("root/etc/fail2ban/jail.conf", "[asterisk]\nenabled = true\n")
    fake.file("root/etc/fail2ban/jail.d/a.conf", "[sshd]\nenabled = true\nport = ssh\n")
    host = fake.host(is_root=False)
    assert checks_neighbours.fail2ban(host).state is DiagnosisState.UNKNOWN
    fake.file("root/etc/fail2ban/jail.local", "[calls]\nenabled = true\nport = sip,sip-tls\n")
    assert "jail calls" in checks_neighbours.fail2ban(host).sentence


DOCKER = "-A DOCKER ! -i docker0 -p udp -m udp --dport {} -j DNAT --to-destination 192.0.2.9:{}"


def test_containers(fake: Fake) -> None:
    fake.setting("net/ipv4/ip_forward", 1)
    fake.iptables_nft(saved(DOCKER.format(8080, 5060), table="nat", chains="DOCKER"))
    assert containers.published(fake.host()).sentence.startswith("no SIP port")
    fake.iptables_nft(saved(DOCKER.format(5060, 5060), table="nat", chains="DOCKER"))
    found = containers.published(fake.host())
    assert found.state is DiagnosisState.OK
    assert "port 5060 is sent on" in found.sentence
    fake.setting("net/ipv4/ip_forward", 0)
    assert containers.published(fake.host()).state is DiagnosisState.WARNING


ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t016433C6\t0003\t0\t0\t100\t00000000\t0\t0\t0
docker0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
OWN = "Local:\n  |-- 192.0.2.9\n     /32 host LOCAL\n"


@pytest.mark.parametrize(
    ("behind", "known"),
    [("[]", False), ("[docker0]", True), ("['docker*']", True), ("[dokcer0, 'br-*']", False)],
)
def test_the_policy_names_the_bridge(behind: str, known: bool, fake: Fake, tmp_path: Path) -> None:
    fake.setting("net/ipv4/ip_forward", 1)
    fake.file("proc/net/route", ROUTES)
    fake.iptables_nft(saved(DOCKER.format(5060, 5060), table="nat", chains="DOCKER"))
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"signalling: {{behind: {behind}}}\n")
    ruleset = compile_policy(load(Request(policy)))
    found = unnamed_containers(fake.host(), ruleset)
    assert [item.field for item in found] == ([] if known else ["signalling.behind"])
    layout = fake.host().layout
    layout.state.mkdir(parents=True)
    made = write_generation(
        layout, Content(ruleset, "iptables-nft", ipset=True, source="p", policy="{}"), None
    )
    record = Applied(expect(ruleset, lower(ruleset)), "p", "iptables-nft", made.number)
    write_applied(layout, record)
    answer = containers.published(fake.host())
    assert answer.state is (DiagnosisState.OK if known else DiagnosisState.PROBLEM)
    assert ("signalling: {behind: [docker0]}" in answer.sentence) == (not known)


def test_a_port_of_this_host_itself_is_no_container(fake: Fake) -> None:
    fake.setting("net/ipv4/ip_forward", 1)
    fake.file("proc/net/route", ROUTES)
    fake.file("proc/net/fib_trie", OWN)
    fake.iptables_nft(saved(DOCKER.format(5060, 5070), table="nat", chains="DOCKER"))
    assert unnamed_containers(fake.host(), compile_policy(load(Request(None)))) == []


def test_the_way_to_the_internet_is_no_bridge_to_name(fake: Fake) -> None:
    fake.setting("net/ipv4/ip_forward", 1)
    fake.file("proc/net/route", ROUTES)
    rule = DOCKER.replace("192.0.2.9", "203.0.113.9").format(5060, 5060)
    fake.iptables_nft(saved(rule, table="nat", chains="DOCKER"))
    assert unnamed_containers(fake.host(), compile_policy(load(Request(None)))) == []


@pytest.mark.parametrize(
    "rule",
    [
        'iifname != "docker0" udp dport 5061 counter dnat to 192.0.2.9:5061',
        "ip daddr 203.0.113.7 tcp dport 5061 dnat ip to 192.0.2.9",
        "udp dport { 5060, 5061 } dnat to 192.0.2.9",
    ],
)
def test_the_bridge_is_found_by_nft(rule: str, fake: Fake) -> None:
    fake.setting("net/ipv4/ip_forward", 1)
    fake.file("proc/net/route", ROUTES)
    fake.nft(f"table ip nat {{\n\tchain DOCKER {{\n\t\t{rule}\n\t}}\n}}\n")
    (found,) = unnamed_containers(fake.host(), compile_policy(load(Request(None))))
    assert "behind: [docker0]" in found.message


def test_a_host_that_forwards_nothing_has_no_container(fake: Fake) -> None:
    fake.iptables_nft(saved(DOCKER.format(5060, 5060), table="nat", chains="DOCKER"))
    ruleset = compile_policy(load(Request(None)))
    fake.setting("net/ipv4/ip_forward", 0)
    assert unnamed_containers(fake.host(), ruleset) == []
    fake.setting("net/ipv4/ip_forward", 1)
    assert unnamed_containers(fake.host(is_root=False), ruleset) == []
    assert unnamed_containers(fake.host(), ruleset)


def test_containers_by_nft(fake: Fake) -> None:
    fake.setting("net/ipv4/ip_forward", 1)
    rule = 'iifname != "docker0" udp dport 5061 counter dnat to 192.0.2.9:5061'
    fake.nft(f"table ip nat {{\n\tchain DOCKER {{\n\t\t{rule}\n\t}}\n}}\n")
    assert "port 5061" in containers.published(fake.host()).sentence


def test_a_program_that_fails_is_asked_once(fake: Fake) -> None:
    fake.programs.failing["nft -t list ruleset"] = "Operation not permitted"
    host = fake.host()
    for _ in range(3):
        with pytest.raises(CannotTellError, match="Operation not permitted"):
            _ = host.rules
    assert fake.programs.asked.count("nft -t list ruleset") == 1
