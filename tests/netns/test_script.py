"""The rendered shell script on a real kernel: all or nothing, and nothing that is not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from script_host import FAIL_FOR_REAL, FLAVOURS, FOREIGN, GUIDE, SHELLS, Host, script

from sipfw.policy.load import shipped_profiles

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.netns
pytest_plugins = ("script_fixtures",)


@pytest.mark.parametrize("iptables", FLAVOURS)
@pytest.mark.parametrize(("number", "profile"), list(enumerate(shipped_profiles())))
def test_every_profile_lives_and_leaves_without_a_trace(
    make_host: Callable[[str, str], Host], iptables: str, number: int, profile: str
) -> None:
    host = make_host(iptables, SHELLS[(number + FLAVOURS.index(iptables)) % 2])
    host.restore(FOREIGN)
    before = host.listing(counters=True)
    text = script(profile)

    host.must(text)
    once = host.listing()
    host.must(text, "apply")

    assert host.listing() == once
    assert host.foreign_rules() == [line for line in before if line[:1] == "["]
    assert host.must(text, "status") == ""
    host.must(text, "remove")
    assert host.listing(counters=True) == before
    assert host.files() == []


@pytest.mark.parametrize("shell", SHELLS)
def test_without_ipset_and_back(make_host: Callable[[str, str], Host], shell: str) -> None:
    host = make_host(FLAVOURS[SHELLS.index(shell)], shell)
    host.must(script())
    host.must(script(ipset=False))
    assert host.ok("ipset", "list", "-n") == ""
    assert host.must(script(ipset=False), "status") == ""
    host.hide("ipset")
    host.must(script(ipset=False))
    host.must(script(ipset=False), "remove")
    del host.env["PATH"]
    assert host.listing() == []


def test_a_smaller_policy_leaves_nothing_of_the_larger(
    make_host: Callable[[str, str], Host],
) -> None:
    small = script("ip-auth", "limits.unknown_sources=denied", "trusted_peers=[]")
    for flavour in FLAVOURS:
        fresh, used = make_host(flavour, "dash"), make_host(flavour, "dash")
        fresh.must(small)
        used.must(script("premium"))
        used.must(small)
        assert sorted(used.listing()) == sorted(fresh.listing())
        assert used.ok("ipset", "list", "-n") == fresh.ok("ipset", "list", "-n")


def test_status_notices_what_was_changed(host: Host) -> None:
    text = script()
    host.must(text)
    tampering = [
        (("-t", "raw", "-A", "SIP_TRUSTED", "-j", "DROP"), "a rule without our mark"),
        (("-t", "raw", "-D", "SIP_BAN", "2"), "SIP_BAN differs at rule 2: no rule instead of"),
        (("-t", "raw", "-D", "PREROUTING", "1"), "jump from PREROUTING is there 0 times"),
        (("-t", "filter", "-F", "SIP_HOST"), "SIP_HOST differs at rule 1"),
    ]
    for words, expected in tampering:
        host.ok(host.iptables, *words)
        before = host.listing(counters=True)
        assert expected in host.must(text, "status", status=1)
        assert host.listing(counters=True) == before
    host.ok("ipset", "add", "sipfw-trusted4", "192.0.2.200")
    named = "set sipfw-trusted4: "
    assert named in host.must(text, "status", status=1)
    host.must(text, "apply", "--adopt")
    assert host.must(text, "status") == ""


def test_status_shows_what_stands_before_the_jump(legacy: Host) -> None:
    legacy.must(script())
    legacy.ok("iptables-legacy", "-I", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT")
    shown = legacy.script(script(), "status")
    assert shown.returncode == 0, shown.stderr
    assert "before it: -A INPUT -s 192.0.2.1/32 -j ACCEPT" in shown.stdout
    legacy.must(script())
    assert legacy.ok("iptables-legacy", "-S", "INPUT").count("SIPFW_INPUT") == 1


def test_learned_sources_survive_a_reload_and_a_resize(host: Host) -> None:
    host.must(script())
    for line in (
        "sipfw-banned4 192.0.2.66 timeout 3000",
        "sipfw-learned6 2001:db8::5",
        "sipfw-shut4 192.0.2.66,udp:5060 timeout 0",
        "sipfw-recent4 192.0.2.66 timeout 0 packets 5 bytes 900",
    ):
        host.ok("ipset", "add", *line.split())
    host.must(script())
    shorter = script("default", "bans.duration=10m")
    host.must(shorter)
    saved = host.ok("ipset", "save", "sipfw-banned4").splitlines()
    assert "timeout 600" in saved[0]
    assert int(saved[1].removeprefix("add sipfw-banned4 192.0.2.66 timeout ")) <= 600
    # A source is a prefix in IPv6, an endpoint has a port, and a window its count.
    for name, element in (
        ("learned6", "2001:db8:: timeout "),
        ("shut4", "192.0.2.66,udp:5060 timeout 0"),
        ("recent4", "192.0.2.66 timeout 0 packets 5 bytes 900"),
    ):
        assert f"add sipfw-{name} {element}" in host.ok("ipset", "save", f"sipfw-{name}")
    assert "-n " not in host.ok("ipset", "save").replace("sipfw-n", "")
    assert host.must(shorter, "status") == ""


def test_the_guides_chains_are_refused_then_adopted(host: Host) -> None:
    host.restore(GUIDE)
    before = host.listing(counters=True)
    said = host.must(script(), status=4)
    assert "table filter, chain SIP_TRUSTED has rules that are not ours" in said
    assert "-A SIP_TRUSTED -s 203.0.113.10/32 -j ACCEPT" in said
    assert "--adopt" in said
    assert host.listing(counters=True) == before

    host.must(script(), "apply", "--adopt")
    stays = [line for line in GUIDE.splitlines() if "-A INPUT" in line and "SIP_" not in line]
    assert host.foreign_rules() == stays
    assert "SIP_TRUSTED" not in host.ok(host.iptables, "-S")
    assert host.must(script(), "status") == ""
    host.must(script(), "remove")
    assert host.files() == ["var/lib/sipfw/script/adopted.v4"]
    assert (host.root / host.files()[0]).read_text().count("SIP_TRUSTED") == 4


def test_a_failed_adoption_brings_the_guides_chains_back(host: Host) -> None:
    host.restore(GUIDE)
    before = host.listing(counters=True)
    host.replace_tool(f"{host.iptables.replace('iptables', 'ip6tables')}-restore", FAIL_FOR_REAL)
    host.must(script(), "apply", "--adopt", status=5)
    assert host.listing(counters=True) == before


def test_going_back_does_not_rewrite_rules_made_with_nft(
    make_host: Callable[[str, str], Host],
) -> None:
    host = make_host("iptables-nft", "dash")
    host.ok("iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT")
    # iptables 1.8.9 lists this as `-A INPUT -j DROP`.
    host.ok("nft", "add set ip filter bad { type ipv4_addr; }")
    host.ok("nft", "add rule ip filter INPUT ip saddr @bad drop")
    before = host.ok("nft", "list", "chain", "ip", "filter", "INPUT")
    host.replace_tool("ip6tables-nft-restore", FAIL_FOR_REAL)
    host.must(script(), status=5)
    assert host.ok("nft", "list", "chain", "ip", "filter", "INPUT") == before


def test_a_jump_of_others_to_an_obsolete_chain_is_a_conflict(host: Host) -> None:
    without_host = script("default", "admin.networks=[]")
    host.must(script())
    host.ok(host.iptables, "-A", "FORWARD", "-j", "SIP_HOST")
    said = host.must(without_host, status=4)
    assert "table filter, chain FORWARD jumps to our old chain SIP_HOST" in said
    host.must(without_host, "apply", "--adopt")
    assert "SIP_HOST" not in host.ok(host.iptables, "-S")


@pytest.mark.parametrize("family", ["iptables", "ip6tables"])
def test_a_refused_load_brings_everything_back(host: Host, family: str) -> None:
    host.restore(FOREIGN)
    host.must(script("retail", "trusted_peers=[{name: old, signalling: [192.0.2.77]}]"))
    host.ok("ipset", "add", "sipfw-banned4", "192.0.2.66")
    before, names = host.listing(counters=True), host.ok("ipset", "list", "-n")
    host.replace_tool(f"{host.iptables.replace('iptables', family)}-restore", FAIL_FOR_REAL)

    said = host.must(script("premium", "bans.duration=10m"), status=5)

    assert "line 3 failed: refused by the test" in said
    assert "the previous firewall is back" in said
    assert host.listing(counters=True) == before
    assert sorted(host.ok("ipset", "list", "-n").split()) == sorted(names.split())


def test_a_refused_first_load_leaves_an_empty_host(host: Host) -> None:
    host.replace_tool(f"{host.iptables.replace('iptables', 'ip6tables')}-restore", FAIL_FOR_REAL)
    host.must(script(), status=5)
    assert host.listing() == []
    assert host.ok("ipset", "list", "-n") == ""


def test_remove_takes_away_the_rest_of_a_half_removed_firewall(host: Host) -> None:
    host.restore(FOREIGN)
    before = host.listing(counters=True)
    host.must(script())
    host.ok(host.iptables, "-D", "INPUT", "1")
    host.ok(host.iptables, "-F", "SIPFW_INPUT")
    host.ok(host.iptables, "-A", "FORWARD", "-j", "SIP_HOST")
    host.ok(host.iptables, "-t", "raw", "-A", "SIP_TRUSTED", "-j", "DROP")
    said = host.must(script(), "remove")
    assert "jumps to a chain of ours: FORWARD -j SIP_HOST" in said
    assert "stood in a chain of ours: -A SIP_TRUSTED -j DROP" in said
    assert host.listing(counters=True) == before
    host.must(script(), "remove")
    assert host.listing(counters=True) == before


UDP_TIMEOUT = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout"


def test_kernel_settings_come_back(legacy: Host) -> None:
    legacy.ok("sh", "-c", f"echo 77 >{UDP_TIMEOUT}")
    done = legacy.must(script())
    legacy.must(script("default", "conntrack.udp_timeout=40"))
    assert "nf_conntrack_max cannot be set" in done
    assert legacy.ok("cat", UDP_TIMEOUT) == "40\n"
    assert (
        "nf_conntrack_udp_timeout = 40" in (legacy.root / "etc/sysctl.d/60-sipfw.conf").read_text()
    )
    legacy.must(script(), "remove")
    assert legacy.ok("cat", UDP_TIMEOUT) == "77\n"
    assert legacy.files() == []


def test_a_sysctl_file_of_somebody_else_stays(legacy: Host) -> None:
    path = legacy.root / "etc/sysctl.d/60-sipfw.conf"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    assert "was not written by sipfw" in legacy.must(script())
    legacy.must(script(), "remove")
    assert path.read_text() == "# mine\n"


def test_the_previous_state_is_kept_for_root_only(legacy: Host) -> None:
    legacy.restore(FOREIGN)
    legacy.must(script())
    folder = legacy.root / "var/lib/sipfw/script"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("previous.v4", "previous.v6", "previous.ipset", "sysctl.before"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert "[5:300] -A INPUT" in (folder / "previous.v4").read_text()


def test_shellcheck_is_content() -> None:
    if shutil.which("shellcheck") is None:
        if os.environ.get("CI"):
            pytest.fail("shellcheck is missing")
        pytest.skip("needs shellcheck")
    whole = script()
    rehearsal = whole.partition("<<'REHEARSE'\n")[2].partition("\nREHEARSE\n")[0]
    assert "probe_all" in rehearsal
    for text in (whole, rehearsal):
        done = subprocess.run(
            ["shellcheck", "--shell=sh", "-"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.stdout == ""
        assert "shellcheck disable" not in text
