"""Doctor: kernel, network and files, right and wrong, and files that nobody should read whole."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING

import pytest
from doctor_host import RELEASE, Fake, by_name, saved

from sipfw.compare.expected import Expectation, ExpectedChain, ExpectedRule
from sipfw.compare.live import Live, LiveChain, LiveRule
from sipfw.deploy.applied import Applied, write_applied
from sipfw.kernel.detect import look
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor import checks_conntrack, checks_kernel, checks_network
from sipfw.monitor.doctor.examine import CHECKS, examine
from sipfw.monitor.doctor.findings import AbsentError, CannotTellError, DiagnosisState
from sipfw.monitor.doctor.host import entries, read_bounded
from sipfw.monitor.doctor.ports import sip_ports

if TYPE_CHECKING:
    from pathlib import Path

TRACK = "net/netfilter/nf_conntrack_"
ROUTED = "20010db8000000000000000000000001 02 40 00 80     eth0\n"
LOCAL = (
    "fe800000000000000000000000000001 02 40 20 80     eth0\n"
    "fd000000000000000000000000000001 02 40 00 80     eth0\n"
    "00000000000000000000000000000001 01 80 10 80       lo\n"
)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


@pytest.mark.parametrize(
    ("count", "state"),
    [(0, DiagnosisState.OK), (800, DiagnosisState.OK), (801, DiagnosisState.PROBLEM)],
)
def test_conntrack_fill(count: int, state: DiagnosisState, fake: Fake) -> None:
    fake.setting(f"{TRACK}count", count)
    fake.setting(f"{TRACK}max", 1000)
    found = checks_conntrack.fill(fake.host())
    assert found.state is state
    wanted = (
        "sysctl -w net.netfilter.nf_conntrack_max=2000" if state is DiagnosisState.PROBLEM else None
    )
    assert found.fix == wanted


@pytest.mark.parametrize(
    ("size", "state"), [(125, DiagnosisState.OK), (124, DiagnosisState.WARNING)]
)
def test_conntrack_hash(size: int, state: DiagnosisState, fake: Fake) -> None:
    fake.setting(f"{TRACK}buckets", size)
    fake.setting(f"{TRACK}max", 1000)
    assert checks_conntrack.buckets(fake.host()).state is state


def test_conntrack_timeouts(fake: Fake) -> None:
    for name, value in (("udp_timeout", 30), ("udp_timeout_stream", 120)):
        fake.setting(f"{TRACK}{name}", value)
    fake.setting(f"{TRACK}tcp_timeout_established", 7200)
    assert checks_conntrack.timeouts(fake.host()).state is DiagnosisState.OK
    fake.setting(f"{TRACK}udp_timeout_stream", 20)
    fake.setting(f"{TRACK}tcp_timeout_established", 432000)
    found = checks_conntrack.timeouts(fake.host())
    assert found.state is DiagnosisState.WARNING
    assert found.fix == (
        "sysctl -w net.netfilter.nf_conntrack_udp_timeout_stream=60 "
        "net.netfilter.nf_conntrack_tcp_timeout_established=7200"
    )


def test_conntrack_not_loaded(fake: Fake) -> None:
    for check in (checks_conntrack.fill, checks_conntrack.buckets, checks_conntrack.timeouts):
        assert check(fake.host()).sentence == "connection tracking is not loaded"


@pytest.mark.parametrize(
    ("everywhere", "here", "state"),
    [(0, 0, DiagnosisState.WARNING), (2, 0, DiagnosisState.OK), (0, 1, DiagnosisState.OK)],
)
def test_rp_filter(everywhere: int, here: int, state: DiagnosisState, fake: Fake) -> None:
    for name, value in (("all", everywhere), ("default", 0), ("lo", 0), ("eth0", here)):
        fake.setting(f"net/ipv4/conf/{name}/rp_filter", value)
    found = checks_network.rp_filter(fake.host())
    assert found.state is state
    assert (found.fix == "sysctl -w net.ipv4.conf.all.rp_filter=2") is (
        state is DiagnosisState.WARNING
    )


GUARD = saved("-A INPUT -j FW", "-A FW -p udp --dport 5060 -j DROP", chains="FW")


@pytest.mark.parametrize(
    ("ip", "ip6", "state"),
    [
        (GUARD, "", DiagnosisState.PROBLEM),
        (GUARD, GUARD, DiagnosisState.OK),
        (saved(policy="DROP"), "", DiagnosisState.PROBLEM),
        (saved(policy="DROP"), saved(policy="DROP"), DiagnosisState.OK),
        ("", "", DiagnosisState.WARNING),
        # Denying one source guards nothing, and a chain that nothing leads to denies nobody.
        (saved("-A INPUT -s 192.0.2.1/32 -j DROP"), "", DiagnosisState.WARNING),
        (saved("-A INPUT -m set --match-set bad src -j DROP"), "", DiagnosisState.WARNING),
        (saved("-A INPUT ! -s 192.0.2.0/24 -j DROP"), "", DiagnosisState.PROBLEM),
        (saved("-A FW -j DROP", chains="FW"), "", DiagnosisState.WARNING),
    ],
)
def test_ipv6_beside_iptables(ip: str, ip6: str, state: DiagnosisState, fake: Fake) -> None:
    fake.file("proc/net/if_inet6", LOCAL + ROUTED)
    fake.legacy(ip, ip6)
    assert checks_network.ipv6(fake.host()).state is state


def _nft(family: str, rule: str, policy: str = "accept") -> str:
    hook = f"type filter hook input priority filter; policy {policy};"
    return f"table {family} fw {{\n\tchain in {{\n\t\t{hook}\n\t\t{rule}\n\t}}\n}}\n"


@pytest.mark.parametrize(
    ("ruleset", "state"),
    [
        (_nft("ip", "udp dport 5060 drop"), DiagnosisState.PROBLEM),
        (_nft("inet", "udp dport 5060 drop"), DiagnosisState.OK),
        (_nft("inet", "accept", "drop"), DiagnosisState.OK),
        (_nft("inet", "ip saddr != 192.0.2.0/24 udp dport 5060 drop"), DiagnosisState.PROBLEM),
        (_nft("inet", "ip saddr @bad drop"), DiagnosisState.WARNING),
        (_nft("inet", 'accept comment "drop"'), DiagnosisState.WARNING),
        (_nft("bridge", "udp dport 5060 drop"), DiagnosisState.WARNING),
    ],
)
def test_ipv6_beside_nft(ruleset: str, state: DiagnosisState, fake: Fake) -> None:
    fake.file("proc/net/if_inet6", ROUTED)
    fake.nft(ruleset)
    assert checks_network.ipv6(fake.host()).state is state


def test_ipv6_that_the_internet_does_not_reach(fake: Fake) -> None:
    fake.legacy(GUARD)
    assert checks_network.ipv6(fake.host()).sentence == "IPv6 is off"
    fake.file("proc/net/if_inet6", LOCAL)
    assert checks_network.ipv6(fake.host()).state is DiagnosisState.OK


MATCHES = "comment conntrack connlimit hashlimit length limit multiport recent set string u32"


def _iptables_host(fake: Fake) -> None:
    fake.programs.answers["iptables --version"] = "iptables v1.8.9 (legacy)"


def test_matches_that_are_registered(fake: Fake) -> None:
    _iptables_host(fake)
    fake.file("proc/net/ip_tables_matches", "\n".join(MATCHES.split()))
    assert checks_kernel.matches(fake.host()).state is DiagnosisState.OK


def test_matches_from_every_source(fake: Fake) -> None:
    _iptables_host(fake)
    names = MATCHES.split()
    fake.file("proc/net/ip_tables_matches", "\n".join(names[:3]))
    fake.file("proc/modules", "".join(f"xt_{name} 16384 0\n" for name in names[3:5]))
    (fake.folder / "sys/module" / f"xt_{names[5]}").mkdir(parents=True)
    built_in = "".join(f"kernel/net/netfilter/xt_{name}.ko\n" for name in names[6:8])
    fake.file(f"modules/{RELEASE}/modules.builtin", built_in)
    module = "kernel/net/netfilter/xt_{}.ko.xz: kernel/net/netfilter/x_tables.ko.xz\n"
    listed = "".join(module.format(name) for name in names[8:-1])
    fake.file(f"modules/{RELEASE}/modules.dep", listed)
    found = checks_kernel.matches(fake.host())
    assert (found.state, found.sentence) == (DiagnosisState.PROBLEM, "this kernel lacks xt_u32")
    fake.file(f"modules/{RELEASE}/modules.dep", listed + module.format("u32"))
    assert checks_kernel.matches(fake.host()).state is DiagnosisState.OK
    fake.setting("kernel/modules_disabled", 1)
    assert checks_kernel.matches(fake.host()).fix == "reboot"


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=ubuntu\n", "apt install linux-modules-extra-$(uname -r)"),
        ('ID="rocky"\nID_LIKE="rhel"\n', "dnf install kernel-modules-extra-$(uname -r)"),
        ("ID=debian\n", "apt install linux-image-amd64 && reboot"),
    ],
)
def test_missing_matches_name_the_package(release: str, command: str, fake: Fake) -> None:
    _iptables_host(fake)
    fake.file("root/etc/os-release", release)
    found = checks_kernel.matches(fake.host())
    assert (found.state, found.fix) == (DiagnosisState.PROBLEM, command)


def test_without_lists_of_modules_nothing_is_known(fake: Fake) -> None:
    _iptables_host(fake)
    (fake.folder / f"modules/{RELEASE}/modules.dep").unlink()
    assert checks_kernel.matches(fake.host()).state is DiagnosisState.UNKNOWN


def test_without_lists_a_live_firewall_tells(fake: Fake) -> None:
    (fake.folder / f"modules/{RELEASE}/modules.dep").unlink()
    write_applied(fake.host().layout, Applied(Expectation((), (), (), ()), "p", "nftables", 1))
    rules = [LiveRule("entry.udp", "01234567", 0, 0, "accept")], []
    for found, state in zip(rules, (DiagnosisState.OK, DiagnosisState.UNKNOWN), strict=True):
        live = Live((LiveChain(Family.IP, "sipfw", "SIP_TRUSTED", tuple(found)),), (), ())
        assert checks_kernel.matches(fake.host(read_live=lambda _, it=live: it)).state is state


def test_nftables_without_text_searches_is_a_warning(fake: Fake) -> None:
    names = ("nf_tables", "nft_ct", "nft_limit", "nft_connlimit")
    fake.file("proc/modules", "".join(f"{name} 16384 0\n" for name in names))
    found = checks_kernel.matches(fake.host())
    assert found.state is DiagnosisState.WARNING
    assert found.sentence == "this kernel lacks nft_compat, xt_string"


def test_iptables_nft_needs_both_worlds(fake: Fake) -> None:
    _iptables_host(fake)
    fake.file("proc/net/ip_tables_matches", "\n".join(MATCHES.split()))
    write_applied(fake.host().layout, Applied(Expectation((), (), (), ()), "p", "iptables-nft", 1))
    assert checks_kernel.matches(fake.host()).sentence == "this kernel lacks nf_tables, nft_compat"


def test_the_clock(fake: Fake) -> None:
    assert checks_kernel.clock(fake.host()).state is DiagnosisState.OK
    found = checks_kernel.clock(fake.host(now=0.0))
    assert (found.state, found.fix) == (DiagnosisState.PROBLEM, "timedatectl set-ntp true")


NEEDED = {
    ("iptables", "log"): "xt_LOG",
    ("iptables", "nflog"): "xt_NFLOG",
    ("iptables-nft", "log"): "xt_LOG",
    ("iptables-nft", "nflog"): "nft_log",
    ("nftables", "log"): "nft_log",
    ("nftables", "nflog"): "nft_log",
}


def _everything_but_logging(fake: Fake) -> None:
    names = [f"xt_{name}" for name in MATCHES.split()]
    names += ["nf_tables", "nft_compat", "nft_ct", "nft_limit", "nft_connlimit"]
    fake.file("proc/modules", "".join(f"{name} 16384 0\n" for name in names))


def _record(fake: Fake, backend: str, line: str | None = None) -> None:
    note = ExpectedRule("log.banned.drop.note", "01234567", "", "", line, "note")
    rules = ExpectedChain(Family.IP, "raw", "SIP_LOG_0", "banned", (note,))
    expectation = Expectation((rules,), (), (), ())
    write_applied(fake.host().layout, Applied(expectation, "p", backend, 1))


@pytest.mark.parametrize(("backend", "reader"), NEEDED)
def test_what_the_policy_file_wants_logged_needs_a_module(
    backend: str, reader: str, fake: Fake
) -> None:
    _everything_but_logging(fake)
    _record(fake, backend)
    assert checks_kernel.matches(fake.host()).state is DiagnosisState.OK
    needed = NEEDED[backend, reader]
    found = checks_kernel.matches(fake.host(log_reader=reader))
    assert (found.state, found.sentence) == (DiagnosisState.PROBLEM, f"this kernel lacks {needed}")
    (fake.folder / "sys/module" / needed).mkdir(parents=True)
    assert checks_kernel.matches(fake.host(log_reader=reader)).state is DiagnosisState.OK


@pytest.mark.parametrize(
    ("backend", "line", "needed"),
    [
        ("iptables", '-A SIP_LOG_0 -j LOG --log-prefix "sipfw banned.drop "', "xt_LOG"),
        ("iptables", '-A SIP_LOG_0 -j NFLOG --nflog-prefix "sipfw x " --nflog-group 5', "xt_NFLOG"),
        ("iptables-nft", '-A SIP_LOG_0 -j NFLOG --nflog-prefix "sipfw x "', "nft_log"),
        ("nftables", 'limit rate 10/minute log prefix "sipfw banned.drop "', "nft_log"),
        ("nftables", 'log prefix "sipfw banned.drop " group 5', "nft_log"),
    ],
)
def test_what_the_applied_firewall_logs_needs_a_module(
    backend: str, line: str, needed: str, fake: Fake
) -> None:
    _everything_but_logging(fake)
    _record(fake, backend, line)
    assert checks_kernel.matches(fake.host()).sentence == f"this kernel lacks {needed}"


def test_a_target_that_is_registered_is_there(fake: Fake) -> None:
    _everything_but_logging(fake)
    _record(fake, "iptables")
    fake.file("proc/net/ip_tables_targets", "ERROR\nLOG\n")
    assert checks_kernel.matches(fake.host(log_reader="log")).state is DiagnosisState.OK
    assert checks_kernel.matches(fake.host(log_reader="nflog")).state is DiagnosisState.PROBLEM


HOSTILE = [
    "proc/modules",
    "proc/net/if_inet6",
    "proc/net/ip_tables_matches",
    "proc/net/ip_tables_names",
    "proc/net/ip6_tables_names",
    "proc/net/ip_tables_targets",
    # The kernel's lists by the name that the doctor reads, and by the one that `detect` asks for.
    f"modules/{RELEASE}/modules.dep",
    f"modules/{platform.release()}/modules.dep",
    f"modules/{platform.release()}/modules.builtin",
    "proc/sys/kernel/osrelease",
    "proc/sys/net/ipv4/ip_forward",
    "proc/sys/net/ipv4/conf/all/rp_filter",
    f"proc/sys/{TRACK}count",
    f"proc/sys/{TRACK}max",
    f"proc/sys/{TRACK}helper",
    "root/etc/os-release",
    "root/etc/fail2ban/jail.local",
    "root/etc/firewalld/zones/public.xml",
    "root/etc/firewalld/services/sip.xml",
    "root/var/lib/sipfw/applied.json",
    "root/var/lib/sipfw/pending.json",
    "root/var/lib/sipfw/undo.json",
]


def _spoil(fake: Fake, how: str) -> None:
    for path in HOSTILE:
        target = fake.file(path)
        if how == "binary":
            target.write_bytes(bytes(range(256)) * 20)
        elif how == "huge":
            os.truncate(target, 1 << 40)
        elif how == "pipe":
            target.unlink()
            os.mkfifo(target)
        elif how == "folder":
            target.unlink()
            target.mkdir()
        elif how == "comments":
            target.write_text("<!--" * 200_000 + '<service name="sip"/>')
        elif how == "deep":
            target.write_text("[" * 100_000)
        else:
            fake.link(path, how)


@pytest.mark.parametrize(
    "how", ["binary", "huge", "pipe", "folder", "deep", "comments", "/dev/zero", "/dev/tty", "."]
)
def test_hostile_files_are_answered_and_never_waited_for(how: str, fake: Fake) -> None:
    fake.file("root/etc/firewalld/zones/good.xml", '<service name="sip"/>')
    _spoil(fake, how)
    started = time.monotonic()
    findings = examine(fake.host())
    assert time.monotonic() - started < 5
    assert {item.name for item in findings} == set(CHECKS)
    assert all(item.sentence.isprintable() for item in findings)
    found = by_name(findings)
    assert found["conntrack-fill"].state is DiagnosisState.UNKNOWN
    assert found["last-apply"].state is DiagnosisState.PROBLEM
    assert found["pending"].state is DiagnosisState.PROBLEM


@pytest.mark.parametrize("how", ["huge", "pipe", "folder", "/dev/zero"])
def test_looking_for_the_legacy_core_reads_no_odd_list(how: str, fake: Fake) -> None:
    _spoil(fake, how)
    started = time.monotonic()
    found = look(fake.programs, fake.folder / "no-proc", fake.folder / "modules", lambda _: False)
    assert not found.legacy_core
    assert time.monotonic() - started < 5


def test_bounded_reads(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc\xff")
    assert read_bounded(file, 4) == "abc\N{REPLACEMENT CHARACTER}"
    with pytest.raises(CannotTellError, match="larger than 3 bytes"):
        read_bounded(file, 3)
    with pytest.raises(AbsentError):
        read_bounded(tmp_path / "none", 3)
    with pytest.raises(AbsentError):
        read_bounded(file / "below", 3)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CannotTellError, match="cannot be read"):
        read_bounded(tmp_path / "loop", 3)
    assert entries(tmp_path / "none") == []


def test_names_of_others_cannot_steer_a_terminal(fake: Fake) -> None:
    fake.setting("net/ipv4/conf/all/rp_filter", 0)
    fake.setting("net/ipv4/conf/\x1b[2Jeth0/rp_filter", 0)
    fake.legacy(
        saved('-A PREROUTING -m comment --comment "\x1b[2J" -j CT --helper sip', table="raw")
    )
    found = by_name(examine(fake.host()))
    assert found["rp-filter"].sentence.startswith("off on \\x1b[2Jeth0:")
    assert (found["sip-alg"].state, found["sip-alg"].fix) == (DiagnosisState.PROBLEM, None)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("5060", {5060}),
        ("5060,5061", {5060, 5061}),
        ("{ 5060, 5160-5170 }", {5060, 5160, 5161}),
        ("5000:5070", {5060, 5061}),
        ("sip,sip-tls", {5060, 5061}),
        ("http,50600,-1,99999999999", set()),
        ("", set()),
    ],
)
def test_ports(text: str, ports: set[int]) -> None:
    assert sip_ports(text) == ports
