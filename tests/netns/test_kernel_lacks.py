"""A kernel or an iptables without each match, target and statement in turn.

Either the firewall works in another form, or one line says what is missing and what helps on this
system, with the old firewall in force.
"""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from lacking_host import LackingHost
from script_host import ruleset, script
from test_live_commands import POLICY

from sipfw.lower.iptables import lower
from sipfw.render.script import script_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

ROCKY9 = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
ROCKY10 = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.2"\n'
EXTRA = "run: dnf install kernel-modules-extra-$(uname -r)"
START = "this host cannot run the rules: "
# What rules of the policy need and has no other form; some of it is enough to try the way.
PARTS = ("hashlimit", "connlimit", "conntrack", "length", "limit", "set", "REJECT")
TRIED = ("hashlimit", "conntrack", "set", "REJECT")
STATEMENTS = {
    "nft_connlimit": "ct count",
    "nft_limit": "limit rate",
    "nft_quota": "quota over",
    "raw payload @ih (kernel 5.16)": "@ih",
    "nf_tables": "add table",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LackingHost]:
    monkeypatch.delenv("SIPFW_BACKEND", raising=False)
    name = f"sipfw-lacks-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    (tmp_path / "policy.yaml").write_text(POLICY)
    try:
        yield LackingHost(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def apply(host: LackingHost, *words: str, code: int = 0) -> str:
    """Apply and return what was said behind the plan."""
    policy = str(host.folder / "policy.yaml")
    return host.sipfw("apply", "--yes", "--policy", policy, *words, code=code).stderr


def refusal(said: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith(START)]
    assert said.splitlines()[-1] == line
    return line.removeprefix(START)


def old_firewall(host: LackingHost, backend: str) -> str:
    """Put a rule of the operator's in force, and return what the kernel holds."""
    if backend == "nftables":
        host.run("nft", "add table inet old; add chain inet old c; add rule inet old c drop")
    else:
        host.run(backend, "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    found = host.rules()
    assert "198.51.100.1" in found or "table inet old" in found
    return found


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_without_u32_the_same_rules_ask_bpf(host: LackingHost, backend: str) -> None:
    host.hides_libraries(["u32"])
    assert "the same bytes are compared by xt_bpf" in apply(host, "--backend", backend)
    saved = host.run(f"{backend}-save").stdout
    assert "-m bpf --bytecode" in saved
    assert "-m u32" not in saved
    assert "the live firewall is the applied one" in host.sipfw("verify").stdout
    # Another kernel has both: what is live is what was applied, and the next apply changes it.
    host.everything_is_there()
    assert "the live firewall is the applied one" in host.sipfw("verify").stdout
    apply(host)
    assert "-m bpf" not in host.run(f"{backend}-save").stdout


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_without_string_the_other_layers_stand(host: LackingHost, backend: str) -> None:
    host.hides_libraries(["string"])
    said = apply(host, "--backend", backend)
    assert "no text searches on this kernel (iptables has no xt_string)" in said
    assert "-m string" not in host.run(f"{backend}-save").stdout
    assert "the live firewall is the applied one" in host.sipfw("verify").stdout


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_an_iptables_without_an_extension(host: LackingHost, backend: str) -> None:
    before = old_firewall(host, backend)
    for part in ("hashlimit", "comment", "REJECT", "u32 bpf"):
        host.everything_is_there()
        host.hides_libraries(part.split())
        line = refusal(apply(host, code=4))
        assert line.startswith(f"iptables has no extension {part.split()[0]}"), part
        assert "run: apt install --reinstall iptables" in line
    host.everything_is_there()
    assert host.rules() == before
    assert not (host.root / "var/lib/sipfw/applied.json").exists()


def test_a_kernel_without_a_match(host: LackingHost) -> None:
    before = old_firewall(host, "iptables-nft")
    host.is_a(ROCKY10)
    for part in TRIED:
        host.kernel_lacks(part)
        line = refusal(apply(host, code=4))
        assert f"xt_{part}" in line or f"ipt_{part}" in line
        assert "RHEL, Alma and Rocky 10 keep it in kernel-modules-extra" in line
        assert EXTRA in line
        assert "(or: sipfw apply --" in line
    host.everything_is_there()
    assert host.rules() == before


def test_rhel_9_has_no_u32_and_needs_none(host: LackingHost) -> None:
    host.is_a(ROCKY9)
    host.kernel_lacks("u32")
    assert "RHEL, Alma and Rocky 9 have none" in apply(host)
    assert "-m bpf" in host.run("iptables-nft-save").stdout
    host.kernel_lacks("u32", "bpf")
    line = refusal(apply(host, code=4))
    assert "the kernel lacks xt_u32: RHEL, Alma and Rocky 9 and later are built without it" in line
    assert line.endswith("run: sipfw apply --backend nftables")


def test_rhel_10_without_its_extra_modules_goes_to_nftables(host: LackingHost) -> None:
    host.is_a(ROCKY10)
    host.kernel_lacks(*PARTS, "u32", "bpf", "string", "tcp", "udp")
    said = apply(host)
    assert "nftables, table inet sipfw: this host has no rules yet, and for iptables" in said
    assert "the kernel has neither xt_u32 nor xt_bpf" in said
    assert "the live firewall is the applied one" in host.sipfw("verify").stdout


def test_an_nftables_without_a_statement(host: LackingHost) -> None:
    before = old_firewall(host, "nftables")
    host.is_a(ROCKY10)
    for module, pattern in STATEMENTS.items():
        host.kernel_lacks_statement(pattern)
        line = refusal(apply(host, code=4))
        assert line.startswith(f"the kernel lacks {module}"), line
        assert ", " not in line.partition(";")[0]
        assert line.endswith("sipfw apply --backend iptables)") or " " in module
    host.everything_is_there()
    assert host.rules() == before


@pytest.mark.parametrize("flavour", ["iptables-nft", "iptables-legacy"])
def test_the_script_says_the_same_and_has_a_form_without_u32(
    host: LackingHost, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPTABLES", flavour)
    for name, text in (
        ("plain.sh", script()),
        ("bpf.sh", script_text(lower(ruleset(), u32=False), ruleset().sysctls)),
    ):
        (host.folder / name).write_text(text)
    plain, bpf = str(host.folder / "plain.sh"), str(host.folder / "bpf.sh")
    before = old_firewall(host, flavour)
    host.is_a(ROCKY9)
    host.hides_libraries(["u32"])
    done = host.run("dash", plain, "apply")
    assert done.returncode == 4
    assert "sipfw render --no-u32 on another machine gives a script for this one" in done.stderr
    assert "the kernel lacks xt_u32: RHEL, Alma and Rocky 9 and later are built" in done.stderr
    host.is_a(ROCKY10)
    host.hides_libraries(["hashlimit"])
    assert "xt_hashlimit, xt_u32" in host.run("dash", plain, "check").stderr
    host.everything_is_there()
    assert host.rules() == before
    host.hides_libraries(["u32"])
    assert host.run("dash", bpf, "apply").returncode == 0
    assert host.run("dash", bpf, "status").returncode == 0
    assert host.run("dash", bpf, "remove").returncode == 0
