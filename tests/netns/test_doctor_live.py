"""The doctor in a namespace of its own: real rules, real settings, and nothing changed by it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from scratch_namespace import scratch_namespace

from lab import warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from scratch_namespace import NamespaceRunner

pytestmark = pytest.mark.netns

SETTING = "net.netfilter.nf_conntrack_udp_timeout"


@pytest.fixture
def space(tmp_path: Path) -> Iterator[NamespaceRunner]:
    with scratch_namespace("doctor", str(tmp_path / "lock")) as runner:
        yield runner


def _sipfw(space: NamespaceRunner, root: Path, *words: str) -> CompletedProcess[str]:
    whole = [words[0], "--root", str(root), *words[1:]]
    return warm.run(space.name, whole, env={"XTABLES_LOCKFILE": space.lock_file})


def _doctor(space: NamespaceRunner, root: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    done = _sipfw(space, root, "doctor", "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, {item["name"]: item for item in json.loads(done.stdout)["findings"]}


def test_an_empty_host(space: NamespaceRunner, tmp_path: Path) -> None:
    before = space.ok("cat", "/proc/net/ip_tables_names")
    code, found = _doctor(space, tmp_path)
    assert code == 0
    assert found["backend"]["sentence"] == "no rules yet"
    assert found["sip-alg"]["state"] == "ok"
    assert found["last-apply"]["state"] == "warning"
    # A kernel in a container comes without the lists of its modules.
    unknown = {name for name, item in found.items() if item["state"] == "unknown"}
    assert unknown <= {"kernel-matches"}
    # Neither a legacy table nor one of nft came into being.
    assert space.ok("cat", "/proc/net/ip_tables_names") == before == ""
    assert space.ok("nft", "list", "ruleset") == ""
    assert list(tmp_path.glob("*")) == []


@pytest.mark.parametrize("backend", ["iptables-legacy", "iptables-nft", "nftables"])
def test_an_applied_firewall_that_is_flushed(
    backend: str, space: NamespaceRunner, tmp_path: Path
) -> None:
    arguments = ["--profile", "wholesale", "--backend", backend]
    applied = _sipfw(space, tmp_path, "apply", *arguments)
    assert applied.returncode == 0, applied.stderr
    code, found = _doctor(space, tmp_path)
    assert code == 0, found
    for name in ("live", "pending", "last-apply", "backend", "state-folder", "kernel-matches"):
        assert found[name]["state"] == "ok", found[name]
    assert "just now" in found["last-apply"]["sentence"]
    flavour = "legacy" if backend == "iptables-legacy" else "nft"
    if backend == "nftables":
        space.ok("nft", "flush", "ruleset")
    else:
        for program in (f"iptables-{flavour}", f"ip6tables-{flavour}"):
            for table in ("raw", "filter"):
                space.ok(program, "-t", table, "-F")
    code, found = _doctor(space, tmp_path)
    assert code == 1
    assert (found["live"]["state"], found["live"]["fix"]) == ("problem", "sipfw restore")
    assert "not in the kernel" in found["live"]["sentence"]


def test_real_rules_of_others(space: NamespaceRunner, tmp_path: Path) -> None:
    helper = ("-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "5060")
    added = space.run(["iptables-legacy", *helper, "-j", "CT", "--helper", "sip"])
    if added.returncode != 0:
        pytest.skip("this kernel has no SIP helper")
    space.ok("iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    code, found = _doctor(space, tmp_path)
    assert code == 1
    assert found["backend"]["state"] == "problem"
    assert found["sip-alg"]["state"] == "problem"
    # The command of the page is what mends it.
    space.ok("sh", "-c", found["sip-alg"]["fix"])
    assert _doctor(space, tmp_path)[1]["sip-alg"]["state"] == "ok"


def test_a_helper_of_nft(space: NamespaceRunner, tmp_path: Path) -> None:
    ruleset = """
    table inet fw {
        ct helper phones { type "sip" protocol udp; }
        chain pre {
            type filter hook prerouting priority -100;
            udp dport { 5060, 5061 } ct helper set "phones"
        }
    }
    """
    if space.run(["nft", "-f", "-"], stdin=ruleset).returncode != 0:
        pytest.skip("this kernel has no SIP helper")
    found = _doctor(space, tmp_path)[1]["sip-alg"]
    assert found["state"] == "problem"
    assert "ct helper set" in space.ok("sh", "-c", found["fix"])


def test_ipv6_beside_a_guarded_ipv4(space: NamespaceRunner, tmp_path: Path) -> None:
    space.ok("ip", "link", "add", "wan", "type", "veth", "peer", "name", "lan")
    space.ok("ip", "addr", "add", "2001:db8::1/64", "dev", "wan", "nodad")
    space.ok("ip", "link", "set", "wan", "up")
    space.ok("nft", "add table ip fw; add chain ip fw in { type filter hook input priority 0; }")
    space.ok("nft", "add rule ip fw in udp dport 5060 drop")
    found = _doctor(space, tmp_path)[1]["ipv6"]
    assert (found["state"], found["fix"]) == ("problem", "sipfw apply")
    arguments = ["--profile", "wholesale", "--backend", "nftables"]
    assert _sipfw(space, tmp_path, "apply", *arguments).returncode == 0
    assert _doctor(space, tmp_path)[1]["ipv6"]["state"] == "ok"


def test_the_fix_of_a_setting_mends_it(space: NamespaceRunner, tmp_path: Path) -> None:
    space.ok("nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }")
    space.ok("nft", "add rule ip t c ct state new accept")
    space.ok("ip", "link", "add", "wan", "type", "veth", "peer", "name", "lan")
    for name, value in ((SETTING, 600), ("net.ipv4.conf.all.rp_filter", 0)):
        space.ok("sysctl", "-w", f"{name}={value}")
    space.ok("sysctl", "-w", "net.ipv4.conf.wan.rp_filter=0")
    found = _doctor(space, tmp_path)[1]
    for name in ("conntrack-timeouts", "rp-filter"):
        assert found[name]["state"] == "warning", found[name]
        space.ok("sh", "-c", found[name]["fix"])
    found = _doctor(space, tmp_path)[1]
    assert [found[name]["state"] for name in ("conntrack-timeouts", "rp-filter")] == ["ok", "ok"]
