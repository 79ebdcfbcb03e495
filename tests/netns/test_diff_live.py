"""`sipfw diff` against a real kernel: before, after, and whatever came between."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from test_confirm import state
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = """\
profile: default
trusted_peers: [{name: a, signalling: [203.0.113.10, "2001:db8:5::/64"]}]
conntrack: {udp_timeout_stream: 77}
scanners: {user_agents: {add: [FirstDialer]}}
"""
SECOND = POLICY.replace("[FirstDialer]", "[FirstDialer, EvilDialer]")
TIMEOUT = "net.netfilter.nf_conntrack_udp_timeout_stream"
SETTING = f"/proc/sys/{TIMEOUT.replace('.', '/')}"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-diff-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "nftables"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def words(host: Host, backend: str, policy: str = POLICY) -> tuple[str, ...]:
    return "--backend", backend, "--policy", host.policy(policy)


def diff(host: Host, backend: str, policy: str = POLICY, *more: str) -> dict[str, Any]:
    """Return the JSON; its verdict and the exit code must agree."""
    done = host.sipfw("diff", *words(host, backend, policy), "--json", *more)
    assert "Traceback" not in done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if data["same"] and not data["others"] else 1)
    return data


def changed(data: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(item["action"], item["family"], item["id"]) for item in data["rules"]}


def must(host: Host, *argv: str) -> str:
    done = host.run(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_before_and_after_an_apply(host: Host, backend: str) -> None:
    empty = state(host)
    data = diff(host, backend)
    assert data["fresh"]
    assert {
        item["action"] for kind in ("rules", "jumps", "chains", "sets") for item in data[kind]
    } == {"add"}
    shown = host.must("diff", *words(host, backend), code=1).stdout
    assert "nothing of sipfw is live on this host" in shown
    assert "scanner.ua.user-firstdialer" not in shown
    full = host.must("diff", *words(host, backend), "--full", code=1).stdout
    assert re.search(r"added +scanner\.ua\.user-firstdialer \(IPv4, IPv6\) .*yaml:4: ", full)
    assert state(host) == empty
    applied = host.must("apply", *words(host, backend)).stderr
    assert applied.index("an apply changes: rules: ") < applied.index("applied: ")
    live = state(host)
    assert diff(host, backend)["same"]
    assert "nothing differs" in host.must("apply", *words(host, backend)).stderr
    assert state(host) == live


def test_a_policy_change_names_its_rules_and_their_lines(host: Host, backend: str) -> None:
    host.must("apply", *words(host, backend))
    data = diff(host, backend, SECOND.replace("77", "88"))
    mine = {
        ("add", family, f"{place}.ua.user-evildialer")
        for family in ("ip", "ip6")
        for place in ("scanner", "stream")
    }
    # nftables leads into a chain of its own for the searches, whose name says their digest.
    lead = {
        ("change", family, f"text.{chain}")
        for family in ("ip", "ip6")
        for chain in ("sip-texts", "sip-stream-texts")
    }
    assert changed(data) == (mine | lead if backend == "nftables" else mine)
    origins = {item["origin"] for item in data["rules"] if item["action"] == "add"}
    assert [origin.rpartition("/")[2] for origin in origins] == [
        "policy.yaml:4: scanners.user_agents"
    ]
    assert [(s["name"], s["before"], s["after"]) for s in data["sysctls"]] == [(TIMEOUT, 77, 88)]
    assert data["sysctls"][0]["origin"].endswith("policy.yaml:3: conntrack.udp_timeout_stream")
    assert not any(data[kind] for kind in ("jumps", "chains", "sets"))


def test_what_goes_is_explained_by_the_record(host: Host, backend: str) -> None:
    host.must("apply", *words(host, backend, SECOND))
    text = host.must("diff", *words(host, backend), code=1).stdout
    assert re.search(
        r"removed +scanner\.ua\.user-evildialer \(IPv4, IPv6\) +scanner text EvilDialer +"
        r".*policy\.yaml:4: scanners\.user_agents\n",
        text,
    )
    (host.root / "var/lib/sipfw/applied.json").unlink()
    assert diff(host, backend, SECOND)["same"]
    gone = [item for item in diff(host, backend)["rules"] if item["action"] == "remove"]
    assert {item["summary"] for item in gone} == {"a rule of sipfw that is on no record"}


def test_members_bans_and_settings(host: Host, backend: str) -> None:
    host.must("apply", *words(host, backend))
    if backend == "nftables":
        must(host, "nft", "add element inet sipfw banned4 { 198.51.100.9 }")
        must(host, "nft", "add element inet sipfw trusted4 { 198.51.100.7 }")
        must(host, "nft", "delete element inet sipfw trusted4 { 203.0.113.10 }")
    else:
        must(host, "ipset", "add", "sipfw-banned4", "198.51.100.9")
        must(host, "ipset", "add", "sipfw-trusted4", "198.51.100.7")
        must(host, "ipset", "del", "sipfw-trusted4", "203.0.113.10")
    must(host, "sh", "-c", f"echo 99 > {SETTING}")
    data = diff(host, backend)
    (change,) = data["sets"]
    assert (change["added"], change["removed"]) == (["203.0.113.10"], ["198.51.100.7"])
    assert "policy.yaml:2: trusted_peers" in change["origin"]
    assert [(s["name"], s["before"], s["after"]) for s in data["sysctls"]] == [(TIMEOUT, 99, 77)]
    assert data["rules"] == []
    host.must("apply", *words(host, backend))
    assert diff(host, backend)["same"]


def test_a_setting_that_the_policy_drops_goes_back(host: Host) -> None:
    own = int(must(host, "cat", SETTING))
    host.must("apply", *words(host, "nftables"))
    without = POLICY.replace("udp_timeout_stream: 77", "udp_timeout_stream: null")
    (change,) = diff(host, "nftables", without)["sysctls"]
    assert (change["before"], change["after"]) == (77, own)
    host.must("apply", *words(host, "nftables", without))
    assert diff(host, "nftables", without)["same"]


def tamper(host: Host, backend: str, chain: str) -> list[str]:
    """Let a rule accept under its old comment, delete the last one, append a stranger's.

    Returns the ids of the first two.
    """
    if backend == "nftables":
        listed = must(host, "nft", "-a", "list", "chain", "inet", "sipfw", f"{chain}4")
        found = re.findall(r'comment "(sipfw:(.*?)#\w+)" # handle (\d+)', listed)
        place = f"rule inet sipfw {chain}4"
        must(host, "nft", f'replace {place} handle {found[0][2]} accept comment "{found[0][0]}"')
        must(host, "nft", f"delete {place} handle {found[-1][2]}")
        must(host, "nft", f'add {place} accept comment "theirs"')
        return [found[0][1], found[-1][1]]
    rules = must(host, backend, "-t", "raw", "-S", chain).splitlines()[1:]
    comments = [shlex.split(rule)[shlex.split(rule).index("--comment") + 1] for rule in rules]
    table = (backend, "-t", "raw")
    must(host, *table, "-R", chain, "1", "-m", "comment", "--comment", comments[0], "-j", "ACCEPT")
    must(host, *table, "-D", chain, str(len(rules)))
    must(host, *table, "-A", chain, "-m", "comment", "--comment", "theirs", "-j", "ACCEPT")
    return [
        comment.removeprefix("sipfw:").partition("#")[0] for comment in (comments[0], comments[-1])
    ]


def test_tampering_in_the_kernel_is_named(host: Host, backend: str) -> None:
    host.must("apply", *words(host, backend))
    edited, deleted = tamper(host, backend, "SIP_RATE_LIMIT")
    data = diff(host, backend)
    assert changed(data) == {("change", "ip", edited), ("add", "ip", deleted), ("remove", "ip", "")}
    details = {item["id"]: item["detail"] for item in data["rules"]}
    assert details[edited].startswith("edited since the apply: ")
    assert "accept" in details[""].lower()
    assert "not made by sipfw" in host.must("diff", *words(host, backend), code=1).stdout
    host.must("apply", *words(host, backend))
    assert diff(host, backend)["same"]


def shut_by_others(host: Host, backend: str) -> None:
    """An apply changes nothing then, and that is not said to be as the policy says."""
    data = diff(host, backend)
    assert data["same"]
    assert any("drops what the policy admits: SIP over UDP to 5060" in x for x in data["others"])
    shown = host.must("diff", *words(host, backend), code=1).stdout
    assert "nothing differs" not in shown


def test_a_lost_jump_and_foreign_rules_outside(host: Host, backend: str) -> None:
    host.must("apply", *words(host, backend))
    if backend == "nftables":
        must(host, "nft", "add table ip other")
        must(host, "nft", "add chain ip other c { type filter hook input priority 5; }")
        must(host, "nft", "add rule ip other c drop")
        shut_by_others(host, backend)
        must(host, "nft", "flush chain inet sipfw raw_prerouting")
    else:
        must(host, backend, "-t", "raw", "-N", "THEIRS")
        must(host, backend, "-t", "raw", "-A", "THEIRS", "-j", "DROP")
        must(host, backend, "-t", "raw", "-I", "PREROUTING", "-j", "THEIRS")
        shut_by_others(host, backend)
        must(host, backend, "-t", "raw", "-D", "PREROUTING", "2")
        must(host, f"ip6{backend.removeprefix('ip')}", "-t", "raw", "-D", "PREROUTING", "1")
    data = diff(host, backend)
    assert {(j["action"], j["family"]) for j in data["jumps"]} == {("add", "ip"), ("add", "ip6")}
    assert data["rules"] == []
    host.must("apply", *words(host, backend))
    assert diff(host, backend)["same"]


def test_a_table_that_was_switched_off(host: Host) -> None:
    host.must("apply", *words(host, "nftables"))
    must(host, "nft", "add table inet sipfw { flags dormant; }")
    assert "switched off" in host.must("diff", *words(host, "nftables"), code=1).stdout
    host.must("apply", *words(host, "nftables"))
    assert diff(host, "nftables")["same"]


def test_a_host_without_ipset(host: Host) -> None:
    host.must("apply", *words(host, "iptables-legacy"), "--no-ipset")
    assert diff(host, "iptables-legacy", POLICY, "--no-ipset")["same"]
    sets = diff(host, "iptables-legacy")["sets"]
    assert {item["action"] for item in sets} == {"add"}


def test_another_backend_is_refused_as_apply_refuses_it(host: Host) -> None:
    host.must("apply", *words(host, "nftables"))
    said = host.must("diff", *words(host, "iptables-legacy"), code=4).stderr
    assert said == host.must("apply", *words(host, "iptables-legacy"), code=4).stderr
    assert "sipfw is live in nftables already" in said


def at_terminal(host: Host, answer: bytes, *more: str) -> tuple[int, str]:
    """Run `sipfw apply` at a terminal of its own; an empty answer waits for no question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *("ip", "netns", "exec", host.name),
            *(sys.executable, "-m", "sipfw", "apply", "--root", str(host.root), *more),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "XTABLES_LOCKFILE": str(host.folder / "lock")},
    )
    os.close(theirs)
    said = b""
    try:
        while answer and b"[y/N] " not in said:
            said += os.read(ours, 1000)
        os.write(ours, answer)
        while part := os.read(ours, 1000):
            said += part
    except OSError:
        pass  # Linux says EIO where the other side has closed
    finally:
        os.close(ours)
    return process.wait(20), said.decode()


def test_apply_asks_at_a_terminal(host: Host, backend: str) -> None:
    host.must("apply", *words(host, backend))
    before = state(host)
    kept = sorted(path for path in host.root.rglob("*") if path.is_file())
    code, said = at_terminal(host, b"n\n", *words(host, backend, SECOND))
    assert code == 1
    assert said.index("scanner.ua.user-evildialer") < said.index("apply these changes? [y/N]")
    assert said.rstrip().endswith("nothing was changed")
    assert state(host) == before
    assert sorted(path for path in host.root.rglob("*") if path.is_file()) == kept
    code, said = at_terminal(host, b"y\n", *words(host, backend, SECOND))
    assert code == 0
    assert diff(host, backend, SECOND)["same"]


def test_yes_and_confirm_and_no_change_ask_nothing_before(host: Host) -> None:
    host.must("apply", *words(host, "nftables"))
    second = words(host, "nftables", SECOND)
    for more in ((*second, "--yes"), second, (*words(host, "nftables"), "--confirm", "1")):
        said = at_terminal(host, b"", *more)[1]
        assert "[y/N]" not in said
    # All three are the same policy file by now, and of no change there is nothing to confirm.
    assert "nothing to confirm" in said
    said = at_terminal(host, b"", *words(host, "nftables", SECOND), "--confirm", "1")[1]
    assert "[y/N]" not in said
    assert "type yes to keep it" in said
