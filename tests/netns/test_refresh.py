"""Peers with host names: the live sets follow DNS, and a DNS that fails harms nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from test_live_commands import Host

from lab import Lab, sip, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = """\
profile: wholesale
admin: {networks: [192.0.2.0/28]}
media: {sources: peers}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, 203.0.113.64/28, sip.a.example]}
  - {name: b, signalling: [sip.b.example], source_ports: [5060]}
  - {name: c, signalling: [sip.c.example], transports: [udp]}
  - {name: d, signalling: [sip.d.example, 203.0.113.20], tier: large}
"""
NAMES = {
    "sip.a.example": ["198.51.100.1", "2001:db8::1"],
    "sip.b.example": ["198.51.100.5"],
    "sip.c.example": ["198.51.100.7"],
    "sip.d.example": ["198.51.100.9"],
}
MOVED = {
    "sip.a.example": ["198.51.100.21", "2001:db8::21"],
    "sip.b.example": ["198.51.100.25"],
    "sip.c.example": ["198.51.100.27"],
    "sip.d.example": ["198.51.100.29"],
}
# The resolver reads this and then asks a name server that no packet reaches.
NO_DNS: dict[str, list[str]] = {}
BIND = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'


def _hosts_text(names: dict[str, list[str]]) -> str:
    lines = [f"{address} {name}" for name, found in names.items() for address in found]
    return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"


def name_files(folder: Path, names: dict[str, list[str]]) -> tuple[str, str]:
    """Write what a host with these names has as /etc/hosts and /etc/resolv.conf."""
    hosts, resolver = folder / "hosts", folder / "resolv.conf"
    hosts.write_text(_hosts_text(names))
    resolver.write_text("nameserver 192.0.2.1\n")
    return str(hosts), str(resolver)


def with_names(folder: Path, names: dict[str, list[str]], command: list[str]) -> list[str]:
    """Return a command line that sees these names, by a hosts file of its own."""
    return ["unshare", "-m", "sh", "-c", BIND, "sh", *name_files(folder, names), *command]


@dataclass(frozen=True)
class NamedHost:
    """A host with a backend, on which each command sees the names that it is given."""

    host: Host
    backend: str

    def sipfw(
        self, names: dict[str, list[str]], *words: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        hosts, resolver = name_files(self.host.folder, names)
        done = warm.run(
            self.host.name,
            [words[0], "--root", str(self.host.root), *words[1:]],
            env={"XTABLES_LOCKFILE": str(self.host.folder / "lock")},
            binds={"/etc/hosts": hosts, "/etc/resolv.conf": resolver},
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def apply(
        self, names: dict[str, list[str]], *more: str, policy: str = POLICY, code: int = 0
    ) -> str:
        words = ("apply", "--policy", self.host.policy(policy), "--backend", self.backend, "--yes")
        return self.sipfw(names, *words, *more, code=code).stderr

    def refresh(self, names: dict[str, list[str]], *more: str, code: int = 0) -> str:
        return self.sipfw(names, "refresh", *more, code=code).stderr

    def verified(self) -> None:
        self.host.must("verify")

    def rules(self) -> object:
        """Return the rules; nft's handles change when a rule is made anew."""
        table = self.host.run("nft", "-a", "-s", "list", "ruleset").stdout
        return self.host.rules(), re.findall(r"^.*comment.*# handle \d+$", table, re.MULTILINE)

    def elements(self) -> set[str]:
        """Return every address of documentation networks that is in a set."""
        nft = self.host.run("nft", "list", "ruleset").stdout
        listed = " ".join(re.findall(r"elements = \{(.*?)\}", nft, re.DOTALL))
        text = listed + "\n" + self.host.run("ipset", "save").stdout
        return set(re.findall(r"(?:198\.51\.100\.\d+|2001:db8::\w+)(?![\w/])", text))


def addresses(*groups: dict[str, list[str]]) -> set[str]:
    return {address for names in groups for found in names.values() for address in found}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str], NamedHost]]:
    spaces: list[str] = []

    def make(backend: str) -> NamedHost:
        name = f"sipfw-refresh-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        spaces.append(name)
        host = Host(name, tmp_path)
        host.run("ip", "link", "set", "lo", "up")
        return NamedHost(host, backend)

    yield make
    for name in spaces:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(params=["iptables-legacy", "nftables"])
def named(request: pytest.FixtureRequest, made: Callable[[str], NamedHost]) -> NamedHost:
    return made(str(request.param))


@pytest.fixture
def legacy(made: Callable[[str], NamedHost]) -> NamedHost:
    return made("iptables-legacy")


@pytest.mark.parametrize("backend", ["iptables-legacy", "iptables-nft", "nftables"])
def test_the_sets_follow_and_no_rule_is_touched(
    made: Callable[[str], NamedHost], backend: str
) -> None:
    named = made(backend)
    named.apply(NAMES)
    assert named.elements() == addresses(NAMES)
    rules = named.rules()
    record = (named.host.root / "var/lib/sipfw/applied.json").read_bytes()
    assert "nothing changed" in named.refresh(NAMES)
    assert (named.host.root / "var/lib/sipfw/applied.json").read_bytes() == record
    said = named.refresh(MOVED)
    assert "198.51.100.21 added" in said
    assert "198.51.100.1 removed" in said
    assert "the rules are untouched" in said
    assert named.elements() == addresses(MOVED)
    assert named.rules() == rules
    named.verified()
    assert "nothing changed" in named.refresh(MOVED)


def test_what_packets_taught_survives(named: NamedHost) -> None:
    named.apply(NAMES)
    if named.backend == "nftables":
        named.host.run("nft", "add element inet sipfw learned4 { 192.0.2.77 timeout 600s }")
    else:
        named.host.run("ipset", "add", "sipfw-learned4", "192.0.2.77", "timeout", "600")
    named.refresh(MOVED)
    listed = named.host.run("nft", "list", "ruleset").stdout + "\n".join(named.host.sets())
    assert "192.0.2.77" in listed


def test_a_useless_answer_empties_no_peer(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    for answer in ([], ["127.0.0.1"], ["0.0.0.0"], ["240.0.0.1"], ["224.0.0.9"]):
        said = legacy.refresh({**NAMES, "sip.a.example": answer})
        assert "'sip.a.example' has no address now" in said
        assert "198.51.100.1, 2001:db8::1" in said
        assert " old\n" in said
        assert "nothing changed" in said
    assert legacy.elements() == addresses(NAMES)
    legacy.verified()


def test_an_apply_without_dns_keeps_the_peers(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    said = legacy.apply(NO_DNS)
    assert said.count("its last good ones stay trusted") == 4
    assert legacy.elements() == addresses(NAMES)
    assert "nothing changed" in legacy.refresh(NAMES)


def test_a_name_that_never_resolved_is_let_in_when_it_does(named: NamedHost) -> None:
    late = {name: found for name, found in NAMES.items() if name != "sip.b.example"}
    assert "the peer is not trusted until it has" in named.apply(late, code=6)
    rules = named.rules()
    assert "the peer is not trusted until it has" in named.refresh(late, code=6)
    assert "198.51.100.5" not in named.elements()
    named.refresh(NAMES)
    assert named.elements() == addresses(NAMES)
    assert named.rules() == rules
    named.verified()


def test_a_lost_cache_empties_no_peer(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    cache = legacy.host.root / "var/lib/sipfw/names.json"
    cache.unlink()
    half = {"sip.a.example": MOVED["sip.a.example"]}
    for _ in range(2):
        assert "what is live stays" in legacy.refresh(half, code=6)
        assert legacy.elements() == addresses(NAMES, half)
        legacy.verified()
    legacy.refresh(MOVED)
    assert legacy.elements() == addresses(MOVED)


def test_a_boot_without_dns_restores_the_addresses_of_the_last_refresh(
    named: NamedHost, made: Callable[[str], NamedHost]
) -> None:
    named.apply(NAMES)
    named.refresh(MOVED)
    # A new namespace with the same files is what a restart leaves.
    again = made(named.backend)
    again.sipfw(NO_DNS, "restore")
    assert again.elements() == addresses(NAMES)
    assert "'sip." not in again.refresh(NO_DNS, "--cached")
    assert again.elements() == addresses(MOVED)
    again.verified()


def test_a_boot_without_cache_restores_the_addresses_of_the_generation(
    legacy: NamedHost, made: Callable[[str], NamedHost]
) -> None:
    legacy.apply(NAMES)
    (legacy.host.root / "var/lib/sipfw/names.json").unlink()
    again = made(legacy.backend)
    again.sipfw(NO_DNS, "restore")
    again.refresh(NO_DNS, "--cached")
    assert again.elements() == addresses(NAMES)
    again.verified()


def test_a_waiting_change_is_left_alone(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    legacy.apply(NAMES, "--confirm", "60", "--set", "bans.duration=9m")
    said = legacy.refresh(MOVED, code=4)
    assert "waits to be confirmed" in said
    assert legacy.elements() == addresses(NAMES)
    legacy.host.must("confirm")
    legacy.refresh(MOVED)
    assert legacy.elements() == addresses(MOVED)


def test_the_stored_policy_counts_not_the_file(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    legacy.host.policy(POLICY.replace("sip.a.example", "sip.evil.example"))
    legacy.refresh({**MOVED, "sip.evil.example": ["198.51.100.66"]})
    assert legacy.elements() == addresses(MOVED)


def test_a_set_that_is_gone_is_named(named: NamedHost) -> None:
    named.apply(NAMES)
    named.host.run("nft", "flush", "ruleset")
    named.host.run("iptables-legacy", "-t", "raw", "-F")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("raw", "filter"):
            named.host.run(tool, "-t", table, "-F")
    named.host.run("ipset", "destroy")
    said = named.refresh(MOVED, code=4)
    assert "is not in the kernel; see sipfw verify" in said
    named.host.must("restore")
    named.refresh(MOVED)
    named.verified()


def test_an_element_that_somebody_took_out_is_no_hindrance(named: NamedHost) -> None:
    named.apply(NAMES)
    if named.backend == "nftables":
        done = named.host.run("nft", "delete element inet sipfw trusted4 { 198.51.100.1 }")
    else:
        done = named.host.run("ipset", "del", "sipfw-trusted4", "198.51.100.1")
    assert done.returncode == 0, done.stderr
    named.refresh(MOVED)
    assert named.elements() == addresses(MOVED)
    named.verified()


def test_a_kill_between_kernel_and_record_is_mended_by_the_next_one(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    record = legacy.host.root / "var/lib/sipfw/applied.json"
    old = record.read_bytes()
    legacy.refresh(MOVED)
    record.write_bytes(old)
    legacy.host.must("verify", code=1)
    legacy.refresh(MOVED)
    legacy.verified()


def test_a_record_that_cannot_be_written_stops_it_before_the_kernel(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    before = legacy.host.sets()
    root = legacy.host.root
    sealed = f'mount --bind {root} {root} && mount -o remount,ro,bind {root} && exec "$@"'
    command = [sys.executable, "-m", "sipfw", "refresh", "--root", str(root)]
    done = legacy.host.run(
        *with_names(legacy.host.folder, MOVED, ["unshare", "-m", "sh", "-c", sealed, "sh"]),
        *command,
    )
    assert done.returncode == 4, done.stderr
    assert "is read-only" in done.stderr
    assert legacy.host.sets() == before


def test_a_host_without_ipset_is_told_to_apply_again(legacy: NamedHost) -> None:
    legacy.apply(NAMES, "--no-ipset")
    rules = legacy.host.rules()
    assert "nothing changed" in legacy.refresh(NAMES)
    assert "they stand in rules; apply again" in legacy.refresh(MOVED, code=4)
    assert legacy.host.rules() == rules
    legacy.verified()


def test_nothing_to_do_is_said(legacy: NamedHost) -> None:
    assert "no firewall of sipfw is in force" in legacy.refresh(NAMES)
    assert not legacy.host.root.exists()
    legacy.apply(NAMES, policy="trusted_peers: [{name: a, signalling: [203.0.113.10]}]\n")
    assert "the live policy names no host and no block list" in legacy.refresh(NAMES)
    assert not (legacy.host.root / "var/lib/sipfw/names.json").exists()


def test_a_name_server_that_never_answers_costs_seconds(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    # The other end takes the questions, which are for somebody else, and says nothing.
    for words in (
        "link add hole type veth peer name end",
        "link set hole up",
        "link set end up",
        "address add 192.0.2.2/24 dev hole",
        "neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev hole",
    ):
        assert legacy.host.run("ip", *words.split()).returncode == 0
    started = time.monotonic()
    assert "no answer in time" in legacy.refresh(NO_DNS)
    assert time.monotonic() - started < 15
    assert legacy.elements() == addresses(NAMES)


def test_a_generation_with_a_damaged_policy_is_named(legacy: NamedHost) -> None:
    legacy.apply(NAMES)
    path = legacy.host.root / "var/lib/sipfw/generations/1/policy.json"
    for text in ("{", '{"trusted_peers": 1}', "[" * 100_000):
        path.write_text(text)
        assert "the policy of generation 1 cannot be read" in legacy.refresh(MOVED, code=4)
    assert legacy.elements() == addresses(NAMES)


def test_remove_leaves_the_host_as_it_was_before_install(named: NamedHost) -> None:
    root = named.host.root
    for folder in ("var/lib", "etc/sysctl.d", "etc/systemd/system/multi-user.target.wants"):
        (root / folder).mkdir(parents=True)
    (root / "etc/systemd/system/other.service").write_text("[Service]\nExecStart=/bin/true\n")
    (root / "etc/systemd/system/multi-user.target.wants/other.service").symlink_to("../other")
    (root / "etc/sysctl.d/10-other.conf").write_text("net.core.somaxconn = 4096\n")
    named.host.run("iptables-legacy", "-A", "INPUT", "-s", "192.0.2.9", "-j", "DROP")
    named.host.run("nft", "add table inet other")
    before = _tree(root), _kernel(named)
    named.apply(NAMES, policy=POLICY + "conntrack: {udp_timeout_stream: 77}\n")
    said = named.host.must("install-service").stderr
    assert "sipfw.service" in said
    assert (root / "etc/systemd/system/multi-user.target.wants/sipfw.service").is_symlink()
    assert (root / "etc/systemd/system/timers.target.wants/sipfw-refresh.timer").is_symlink()
    assert "the units were there already" in named.host.must("install-service").stderr
    named.refresh(MOVED)
    said = named.host.must("remove", "--yes", "--purge").stderr
    assert "disabled and deleted: sipfw.service" in said
    assert (_tree(root), _kernel(named)) == before


def _tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): f"{path.lstat().st_mode:o} "
        + ("" if path.is_symlink() or path.is_dir() else path.read_text())
        for path in sorted(root.rglob("*"))
    }


def _kernel(named: NamedHost) -> object:
    setting = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"
    return (
        # A table that was used once exists from then on, without a rule.
        [line for line in named.host.rules() if " -A " in line or line.endswith(" -")],
        named.host.sets(),
        sorted(named.host.run("nft", "list", "tables").stdout.splitlines()),
        named.host.run("cat", setting).stdout,
    )


def test_the_unit_restores_what_it_says(
    legacy: NamedHost, made: Callable[[str], NamedHost]
) -> None:
    legacy.apply(NAMES)
    legacy.refresh(MOVED)
    legacy.host.must("install-service", "--no-enable")
    unit = (legacy.host.root / "etc/systemd/system/sipfw.service").read_text()
    again = made(legacy.backend)
    for command in re.findall(r"^ExecStart=-?(.*)$", unit, re.MULTILINE):
        done = again.host.run(*with_names(again.host.folder, NO_DNS, command.split()))
        assert done.returncode == 0, done.stderr
    assert again.elements() == addresses(MOVED)
    again.verified()


@pytest.mark.parametrize("backend", ["iptables-legacy", "nftables"])
def test_packets_of_the_new_address_pass_and_those_of_the_old_do_not(
    backend: str, tmp_path: Path
) -> None:
    with Lab(hosts=("carrier", "attacker")) as lab:
        env = {"XTABLES_LOCKFILE": str(tmp_path / "lock")}

        def sipfw(address: str, *words: str) -> None:
            hosts, resolver = name_files(tmp_path, {"sip.a.example": [address]})
            done = warm.run(
                lab.switch.namespace,
                [words[0], "--root", str(tmp_path / "root"), *words[1:]],
                env=env,
                binds={"/etc/hosts": hosts, "/etc/resolv.conf": resolver},
            )
            assert done.returncode == 0, done.stderr

        policy = tmp_path / "policy.yaml"
        policy.write_text("trusted_peers: [{name: a, signalling: [sip.a.example]}]\n")
        sipfw(
            lab.carrier.address("ip"),
            *("apply", "--backend", backend, "--policy", str(policy), "--yes"),
        )
        sink = lab.switch.udp_sink(5060)

        def delivered() -> list[int]:
            counts = []
            for host in (lab.carrier, lab.attacker):
                sink.clear()
                target = lab.switch.address_for(host)
                options = sip.request("OPTIONS", source=host.address("ip"), destination=target)
                host.send_udp(target, 5060, [options] * 3, source_port=5060)
                counts.append(sink.settle())
            return counts

        assert delivered() == [3, 0]
        sipfw(lab.attacker.address("ip"), "refresh")
        assert delivered() == [0, 3]


def test_the_cache_says_when(legacy: NamedHost) -> None:
    started = time.time()
    legacy.apply(NAMES)
    legacy.refresh({**MOVED, "sip.a.example": []})
    data = json.loads((legacy.host.root / "var/lib/sipfw/names.json").read_text())["names"]
    assert {
        name: [member["address"] for member in item["addresses"]] for name, item in data.items()
    } == {
        **MOVED,
        "sip.a.example": NAMES["sip.a.example"],
    }
    assert data["sip.a.example"]["time"] < data["sip.b.example"]["time"]
    assert started < data["sip.a.example"]["time"] < time.time()


@pytest.mark.parametrize("backend", ["iptables-legacy", "nftables"])
def test_neighbouring_addresses_come_and_go(made: Callable[[str], NamedHost], backend: str) -> None:
    named = made(backend)
    named.apply(NAMES)
    # Two that are one network together are no new kind of element.
    pairs = {name: ["198.51.100.40", "198.51.100.41"] for name in NAMES}
    for names in (pairs, MOVED, pairs):
        named.refresh(names)
        named.verified()
