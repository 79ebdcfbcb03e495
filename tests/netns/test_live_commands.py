"""apply, verify and remove as an operator runs them, each in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from iptables_bench import FOREIGN, GUIDE_SCRIPT

from lab import namespaces, warm
from sipfw.policy.load import shipped_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

POLICY = """\
profile: wholesale
admin: {networks: [192.0.2.0/28, "2001:db8:ad::/64"]}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, "2001:db8:5::/64"], tier: large}
  - {name: b, signalling: [198.51.100.7], source_ports: [5060, 5070]}
  - {name: c, signalling: [198.51.100.8], transports: [udp, tls]}
signalling: {udp: [5060], tcp: [5060], tls: [5061]}
"""


@dataclass(frozen=True)
class Host:
    """A namespace with a root folder of its own."""

    name: str
    folder: Path

    def run(
        self, *argv: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        lock = {"XTABLES_LOCKFILE": str(self.folder / "lock")}
        return namespaces.run(self.name, argv, stdin, env={**lock, **(env or {})})

    def sipfw(
        self, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        whole = [words[0], "--root", str(self.root), *words[1:]]
        lock = {"XTABLES_LOCKFILE": str(self.folder / "lock")}
        return warm.run(self.name, whole, env={**lock, **(env or {})})

    def python(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `python -c CODE WORDS` with sipfw already loaded."""
        lock = {"XTABLES_LOCKFILE": str(self.folder / "lock")}
        return warm.run_code(self.name, code, *words, env=lock)

    def must(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.sipfw(*words)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def policy(self, text: str = POLICY) -> str:
        path = self.folder / "policy.yaml"
        path.write_text(text)
        return str(path)

    def saved(self, *options: str) -> list[str]:
        """Return everything that the kernel holds, both families, without the comment lines."""
        lines = []
        for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
            done = self.run(tool, *options)
            assert done.returncode == 0, done.stderr
            lines += [line for line in done.stdout.splitlines() if not line.startswith("#")]
        return lines

    def rules(self) -> list[str]:
        """Return the rules in order; the tools list the tables in the order of their creation."""
        tables: dict[str, list[str]] = {}
        for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
            current: list[str] = []
            for line in self.run(tool).stdout.splitlines():
                if line.startswith("*"):
                    current = tables.setdefault(f"{tool} {line}", [])
                elif line.startswith(("-A", ":")):
                    current.append(line.partition(" [")[0] if line.startswith(":") else line)
        return [f"{name} {line}" for name in sorted(tables) for line in tables[name]]

    def sets(self) -> list[str]:
        """Return the sets with their members; hash order and initial values are not compared."""
        done = self.run("ipset", "save")
        lines = [line.partition(" initval")[0] for line in done.stdout.splitlines()]
        return sorted(line.partition(" bucketsize")[0] for line in lines)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-live-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_goes_live_and_verifies(host: Host, example: Path) -> None:
    host.must("apply", "--policy", str(example))
    done = host.must("verify")
    assert "the live firewall is the applied one" in done.stdout
    host.must("verify", "--policy", str(example))
    host.must("remove")
    assert not [line for line in host.rules() if "-A" in line]
    assert host.sets() == []


@pytest.mark.parametrize("profile", shipped_profiles())
def test_script_and_apply_make_the_same_state(host: Host, profile: str, tmp_path: Path) -> None:
    policy = host.policy()
    script = tmp_path / "firewall.sh"
    rendered = host.must("render", "--policy", policy, "--profile", profile)
    script.write_text(rendered.stdout)
    env = {
        "SIPFW_ROOT": str(tmp_path / "script-root"),
        "IPTABLES": "iptables-legacy",
        "IP6TABLES": "ip6tables-legacy",
    }
    loaded = host.run("sh", str(script), env=env)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    by_script = host.rules(), host.sets()
    assert len(by_script[0]) > 60
    gone = host.run("sh", str(script), "remove", env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    host.must("apply", "--policy", policy, "--profile", profile)
    assert (host.rules(), host.sets()) == by_script


def test_apply_twice_keeps_state_and_learned_sources(host: Host) -> None:
    policy = host.policy()
    host.must("apply", "--policy", policy)
    before = host.rules(), host.sets()
    host.run("ipset", "add", "sipfw-learned4", "198.51.100.9", "timeout", "0")
    host.must("apply", "--policy", policy)
    assert host.rules() == before[0]
    assert set(host.sets()) == {*before[1], "add sipfw-learned4 198.51.100.9 timeout 0"}


def test_foreign_rules_survive_apply_reapply_and_remove(host: Host) -> None:
    host.run("iptables-legacy-restore", "-c", stdin=FOREIGN)
    host.run(
        "ip6tables-legacy-restore", "-c", stdin="*filter\n[7:70] -A INPUT -s 2001:db8::9\nCOMMIT\n"
    )

    def foreign() -> list[str]:
        ours = ("sipfw:", ":SIP_", ":SIPFW_")
        tables = {"*raw", "*filter"}
        kept: list[str] = []
        skip = False
        for line in host.saved("-c"):
            skip = line not in tables if line.startswith("*") else skip
            if not skip and not any(mark in line for mark in ours):
                kept.append(line)
        return [line for line in kept if line.startswith(("[", ":")) and " [0:0]" not in line]

    before = foreign()
    assert len(before) > 5
    policy = host.policy()
    host.must("apply", "--policy", policy)
    assert foreign() == before
    host.must("apply", "--policy", policy, "--set", "limits.aggregate=500/second")
    assert foreign() == before
    host.must("remove")
    assert foreign() == before


def test_pasted_script_is_refused_then_adopted(host: Host) -> None:
    host.run("iptables-legacy-restore", stdin=GUIDE_SCRIPT)
    before = host.saved()
    refused = host.must("apply", "--policy", host.policy(), code=4)
    assert "chain ip filter SIP_TRUSTED" in refused.stderr
    assert "--adopt" in refused.stderr
    assert host.saved() == before
    host.must("apply", "--policy", host.policy(), "--adopt")
    rules = [
        line for line in host.rules() if line.startswith("iptables-legacy-save *filter -A INPUT")
    ]
    assert [line.rpartition("-A ")[2] for line in rules if "sipfw:" not in line] == [
        "INPUT -i lo -j ACCEPT",
        "INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        "INPUT -j DROP",
    ]
    assert "sipfw:hook.filter.input" in rules[0]
    # The script's last rule takes what the policy gives, until what apply has named is opened.
    said = host.must("verify", code=2).stdout
    assert "`-A INPUT -j DROP` of iptables-legacy filter INPUT drops what the policy admits" in said
    command = said.rpartition("open it: ")[2].splitlines()[0]
    host.run(*command.split())
    host.must("verify")


def test_verify_changes_nothing_and_creates_no_table(host: Host) -> None:
    untouched = host.saved(), host.sets()
    # Nothing is applied: every rule is missing, and the kernel's settings are its own.
    host.must("verify", "--profile", "default", code=2)
    assert (host.saved(), host.sets()) == untouched == ([], [])
    host.must("apply", "--policy", host.policy())
    live = host.saved("-c"), host.sets()
    host.must("verify")
    assert (host.saved("-c"), host.sets()) == live


TAMPERING = {
    "rule deleted": (
        "iptables-legacy -t raw -D SIP_SCANNER_BLOCK 3",
        ("missing", "rule", "scanner.options-udp"),
    ),
    "rule inserted": (
        "iptables-legacy -t raw -I SIP_TRUSTED 1 -s 198.51.100.0/24 -j ACCEPT",
        ("extra", "rule", "SIP_TRUSTED"),
    ),
    "port edited under its comment": (
        (
            "iptables-legacy -t raw -R SIPFW_PREROUTING 2 -p udp --dport 5070 "
            "-m comment --comment {comment} -g SIP_TRUSTED"
        ),
        ("changed", "rule", "entry.udp"),
    ),
    "chain flushed": (
        "ip6tables-legacy -t raw -F SIP_RATE_LIMIT",
        ("missing", "rule", "rate.per-source"),
    ),
    "jump removed": (
        "iptables-legacy -t raw -F PREROUTING",
        ("missing", "jump", "PREROUTING"),
    ),
    "jump narrowed under its comment": (
        (
            "iptables-legacy -t raw -R PREROUTING 1 -s 203.0.113.9 "
            "-m comment --comment {jump} -j SIPFW_PREROUTING"
        ),
        ("changed", "jump", "PREROUTING"),
    ),
    "accept before the jump": (
        "iptables-legacy -t raw -I PREROUTING 1 -p udp --dport 5060 -j ACCEPT",
        ("moved", "jump", "PREROUTING"),
    ),
    "peer added by hand": (
        "ipset add sipfw-trusted4 198.51.100.99",
        ("extra", "set element", "198.51.100.99"),
    ),
    "peer taken out": (
        "ipset del sipfw-trusted4 203.0.113.10",
        ("missing", "set element", "203.0.113.10"),
    ),
    "foreign set of ours": ("ipset create sipfw-mine hash:ip", ("extra", "set", "sipfw-mine")),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_named(host: Host, name: str) -> None:
    host.must("apply", "--policy", host.policy())
    command, (kind, what, where) = TAMPERING[name]
    comment, jump = (
        next(line.partition('"')[2].partition('"')[0] for line in host.rules() if part in line)
        for part in ("entry.udp", "hook.raw.prerouting")
    )
    done = host.run(*command.format(comment=comment, jump=jump).split())
    assert done.returncode == 0, done.stderr
    found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
    assert [
        item
        for item in found
        if (item["kind"], item["what"]) == (kind, what) and where in item["where"]
    ]
    host.must("apply", "--policy", host.policy(), "--adopt")
    if kind != "moved":
        host.must("verify")


def test_moved_rule_alone_is_named(host: Host) -> None:
    host.must("apply", "--policy", host.policy())
    listing = host.run("iptables-legacy-save", "-t", "raw").stdout.splitlines()
    chain = [line for line in listing if line.startswith("-A SIP_SOURCES")]
    moved = [*chain[2:3], *chain[:2], *chain[3:]]
    text = "*raw\n:SIP_SOURCES - [0:0]\n" + "\n".join(moved) + "\nCOMMIT\n"
    assert host.run("iptables-legacy-restore", "--noflush", stdin=text).returncode == 0
    found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
    assert len(found) == 1
    assert found[0]["kind"] == "moved"


def test_missing_ipset_program_changes_nothing(host: Host, tmp_path: Path) -> None:
    host.must("apply", "--policy", host.policy())
    before = host.saved("-c")
    empty = tmp_path / "empty"
    empty.write_text("")
    empty.chmod(0o644)
    # A private mount namespace hides the program from this command alone.
    hidden = f'mount --bind {empty} /usr/sbin/ipset && exec "$@"'
    done = host.run(
        "unshare", "-m", "sh", "-c", hidden, "sh",
        sys.executable, "-m", "sipfw", "apply", "--root", str(host.root), "--policy", host.policy(),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "ipset" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.saved("-c") == before


def test_unresolvable_peer_applies_with_the_rest(host: Host) -> None:
    text = POLICY.replace("203.0.113.10,", "203.0.113.10, sip.carrier.invalid,")
    done = host.must("apply", "--policy", host.policy(text), code=6)
    assert "sip.carrier.invalid" in done.stderr
    assert "add sipfw-trusted4 203.0.113.10" in host.sets()


def test_five_thousand_peers_go_live(host: Host) -> None:
    peers = "\n".join(
        f"  - {{name: p{i}, signalling: ['2001:db8:{i:x}::/64']}}" for i in range(5000)
    )
    host.must("apply", "--policy", host.policy(f"profile: wholesale\ntrusted_peers:\n{peers}\n"))
    assert len([line for line in host.sets() if line.startswith("add sipfw-trusted6")]) == 5000
    host.must("verify")


def test_policy_faults_change_nothing(host: Host) -> None:
    host.must("apply", "--policy", host.policy())
    before = host.saved("-c"), host.sets()
    done = host.must("apply", "--policy", host.policy("bans: {duration: 3600x}\n"), code=3)
    assert done.stdout == ""
    assert (host.saved("-c"), host.sets()) == before


def test_ip_auth_needs_a_peer(host: Host) -> None:
    done = host.must("apply", "--profile", "ip-auth", code=3)
    assert "trusted_peers" in done.stderr
    assert host.saved() == []


def test_dry_run_changes_nothing(host: Host) -> None:
    done = host.must("apply", "--policy", host.policy(), "--dry-run")
    assert "would load" in done.stdout
    assert host.saved() == []
    assert host.sets() == []
    assert not host.root.exists()


def test_files_stay_below_the_root_and_are_roots_alone(host: Host) -> None:
    host.must("apply", "--policy", host.policy())
    state = host.root / "var/lib/sipfw"
    names = sorted(path.name for path in state.iterdir())
    assert names == ["applied.json", "generations", "sysctl.before"]
    modes = {path.stat().st_mode & 0o077 for path in (state, *state.rglob("*"))}
    assert modes == {0}
    assert "nf_conntrack_udp_timeout" in (host.root / "etc/sysctl.d/60-sipfw.conf").read_text()
    host.must("remove")
    archive = host.root / "var/lib/sipfw-removed"
    left = [path for path in host.root.rglob("*") if path.is_file()]
    assert left
    assert all(path.is_relative_to(archive) for path in left)
    assert {path.stat().st_mode & 0o077 for path in (archive, *archive.rglob("*"))} == {0}
    host.must("remove", "--purge")
    assert not [path for path in host.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("backend", ["iptables-legacy", "nftables"])
def test_remove_leaves_no_file_after_every_command_that_keeps_one(
    host: Host, backend: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("198.51.100.200\n")
    feeds = f"feeds: [{{name: own, file: {bad}}}]\n"
    host.must("apply", "--backend", backend, "--policy", host.policy(POLICY + feeds))
    host.must("ban", "198.51.100.66", "--reason", "toll fraud")
    host.must("trust", "198.51.100.9", "--for", "1h")
    host.must("verify")
    host.must("metrics", "--textfile", str(tmp_path / "sipfw.prom"))
    host.must("report", "--html", str(tmp_path / "report.html"), "--seconds", "0")
    host.must("refresh", "--feeds-now")
    host.must("rollback")
    host.must("feeds")
    state = host.root / "var/lib/sipfw"
    kept = {"bans.json", "trust.json", "feeds", "readings", "generations", "applied.json"}
    assert {path.name for path in state.iterdir()} >= kept
    host.must("remove", "--purge")
    assert not [path for path in host.root.rglob("*") if not path.is_dir()]
    for command in (("bans",), ("feeds",), ("top",), ("metrics",), ("why", "198.51.100.66")):
        said = host.must(*command, code=4)
        assert said.stdout == ""
        assert said.stderr.startswith("no firewall of sipfw is in force; make one live: sipfw app")


def test_read_only_state_folder_changes_nothing(host: Host) -> None:
    host.must("apply", "--policy", host.policy())
    before = host.saved("-c"), host.sets()
    sealed = f'mount -t tmpfs -o ro none {host.root} && exec "$@"'
    words = ("--root", str(host.root), "--policy", host.policy(), "--set", "bans.duration=9m")
    command = (sys.executable, "-m", "sipfw", "apply", *words)
    done = host.run("unshare", "-m", "sh", "-c", sealed, "sh", *command)
    assert done.returncode == 4, done.stderr
    assert "is read-only" in done.stderr
    assert (host.saved("-c"), host.sets()) == before


def test_remove_without_a_record_finds_either_backend(host: Host) -> None:
    for backend in ("iptables", "nftables"):
        host.must("apply", "--policy", host.policy(), "--backend", backend)
        (host.root / "var/lib/sipfw/applied.json").unlink()
        host.must("remove")
        assert not [line for line in host.rules() if "sipfw" in line]
        assert host.run("nft", "list", "tables").stdout == ""


def test_sysctls_are_set_and_taken_back(host: Host) -> None:
    name = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"
    before = host.run("cat", name).stdout
    policy = host.policy(POLICY + "conntrack: {udp_timeout_stream: 77}\n")
    done = host.must("apply", "--policy", policy)
    assert "nf_conntrack_max" in done.stderr
    assert host.run("cat", name).stdout.strip() == "77"
    host.must("apply", "--policy", policy, "--set", "conntrack.udp_timeout_stream=88")
    host.must("remove")
    assert host.run("cat", name).stdout == before


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_who_is_logged_in_by_ssh_is_not_locked_out(host: Host, command: str) -> None:
    policy = host.policy()
    words = ["apply", "--policy", policy]
    if command == "rollback":
        host.must(*words)
        host.must(*words, "--set", "admin.networks=[198.51.100.0/24]")
        words = ["rollback"]
    before = host.rules(), host.sets()
    session = {"SSH_CONNECTION": "198.51.100.7 50022 192.0.2.1 22"}
    refused = host.sipfw(*words, env=session)
    assert refused.returncode == 4
    assert "admin.networks: add 198.51.100.7/32" in refused.stderr
    assert "--force" in refused.stderr
    assert (host.rules(), host.sets()) == before
    if command == "apply":
        assert host.sipfw(*words, "--dry-run", env=session).returncode == 4
    forced = host.sipfw(*words, "--force", env=session)
    assert forced.returncode == 0, forced.stderr
    assert "FORCED: " in forced.stderr
    assert (host.rules(), host.sets()) != before
