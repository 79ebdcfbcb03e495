"""`sipfw why` on a host: nothing changes, every backend answers, and what is wrong is said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lab import namespaces, warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

BANNED = "198.51.100.77"
POLICY = """\
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, "2001:db8:5::/64"]}
signalling: {udp: [5060], tcp: [5060], tls: [5061]}
"""
BACKENDS = {
    "legacy": ("--backend", "iptables-legacy"),
    "nft-flavour": ("--backend", "iptables-nft"),
    "nftables": ("--backend", "nftables"),
    "setless": ("--backend", "iptables-legacy", "--no-ipset"),
}
# Time goes on; everything else must stay.
CLOCKS = re.compile(r"timeout \d+|expires \w+|^# .*|last_seen: \d+", re.MULTILINE)
STATE = "/proc/net/ipt_hashlimit /proc/net/ip6t_hashlimit /proc/net/xt_recent"
LISTENER = """\
import socket, sys
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 5060))
tcp = [socket.create_server(("::", port), family=socket.AF_INET6) for port in (22, 5060, 5061)]
print("ready", flush=True)
sys.stdin.read()
"""
LISTINGS = (
    *(f"{tool}-{kind}-save -c" for tool in ("iptables", "ip6tables") for kind in ("legacy", "nft")),
    "ipset save",
    "nft list ruleset 2>/dev/null",
    f"find {STATE} -type f; cat /proc/net/xt_recent/*",
)


@dataclass(frozen=True)
class Host:
    name: str
    folder: Path

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return namespaces.run(self.name, argv)

    def sipfw(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        whole = [words[0], "--root", str(self.folder / "root"), *words[1:]]
        done = warm.run(self.name, whole, env={"XTABLES_LOCKFILE": str(self.folder / "lock")})
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def apply(self, backend: str) -> None:
        policy = self.folder / "policy.yaml"
        policy.write_text(POLICY)
        self.sipfw("apply", "--policy", str(policy), *BACKENDS[backend])

    def ban(self, backend: str) -> None:
        """Ban as streams do, whose ban is one for datagrams as well."""
        for name in ("banned", "banned-tcp"):
            words = {
                "nftables": f"nft add element inet sipfw {name}4 {{ {BANNED} timeout 90s }}",
                "setless": f"echo +{BANNED} > /proc/net/xt_recent/sipfw-{name}4",
            }
            done = self.run("sh", "-c", words.get(backend, f"ipset add sipfw-{name}4 {BANNED}"))
            assert done.returncode == 0, done.stderr

    def put(self, backend: str, name: str, number: str, *key: str) -> None:
        """Put an endpoint or a source into a set, as the packet path would."""
        words = {
            "nftables": f"nft add element inet sipfw {name}{number} {{ {' . '.join(key)} }}",
            "setless": f"echo +{key[0]} > /proc/net/xt_recent/sipfw-{name}{number}",
        }
        end = f",{':'.join(key[1:])}" if key[1:] else ""
        ours = words.get(backend, f"ipset add sipfw-{name}{number} {key[0]}{end}")
        done = self.run("sh", "-c", ours)
        assert done.returncode == 0, done.stderr

    def everything(self) -> list[str]:
        listed = [self.run("sh", "-c", command).stdout for command in LISTINGS]
        return [CLOCKS.sub("", text) for text in listed]


@contextmanager
def listening(name: str) -> Iterator[None]:
    """Have a program behind the ports that are asked about."""
    command = ["ip", "netns", "exec", name, sys.executable, "-c", LISTENER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        yield
        assert program.stdin is not None
        program.stdin.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-why-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        made.run("ip", "link", "set", "lo", "up")
        # Without routes no answer leaves, and without a program nobody gets what passes.
        made.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1")
        for link in ("out0", "out1"):
            # Without an address of its own a link says nothing.
            made.run("ip", "link", "set", link, "addrgenmode", "none", "up")
        for family in ("-4", "-6"):
            made.run("ip", family, "route", "add", "default", "dev", "out0")
        with listening(name):
            yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_asking_changes_nothing(host: Host, backend: str) -> None:
    host.apply(backend)
    host.ban(backend)
    before = host.everything()
    shown = host.sipfw("why", BANNED).stdout
    asked = json.loads(host.sipfw("why", BANNED, "--json", "--transport", "tcp").stdout)
    host.sipfw("why", "2001:db8:66::7", "--port", "5062")
    host.sipfw("why", "192.0.2.5", "--to-port", "22", "--transport", "tcp")
    assert host.everything() == before
    assert "INVITE over udp to port 5060: dropped" in shown
    assert "banned.drop: banned source  [banned]" in shown
    assert "its ban ends, in " in shown
    assert asked["format"] == 1
    assert asked["answers"][0]["verdict"] == "dropped"
    assert asked["sets"]["banned"]["present"] is True
    assert asked["sets"]["banned-tcp"]["present"] is True
    assert asked["sets"]["learned"]["present"] is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_source_is_a_prefix_and_an_endpoint_has_a_port(host: Host, backend: str) -> None:
    host.apply(backend)
    host.put(backend, "banned", "6", "2001:db8:66::")
    host.put(backend, "shut", "4", "198.51.100.5", "udp", "5060")
    other = host.sipfw("why", "2001:db8:66::77", "--port", "5060").stdout
    assert "INVITE over udp to port 5060: dropped" in other
    assert "source 2001:db8:66::/64 is in banned" in other
    assert "the 2001:db8:66::/64 ban ends" in other
    login = "REGISTER with a password over udp to port 5060"
    assert f"{login}: dropped" in host.sipfw("why", "198.51.100.5", "--port", "5060").stdout
    neighbour = host.sipfw("why", "198.51.100.5", "--port", "5062").stdout
    unknown = host.sipfw("why", "198.51.100.5").stdout
    if backend == "setless":
        assert f"{login}: dropped" in neighbour
        assert f"{login}: dropped" in unknown
    else:
        assert f"{login}: dropped" not in neighbour
        assert f"{login}: passed, unless" in unknown
        assert "it comes from a port that is in shut: then dropped by login.shut" in unknown
        assert "(--port tells)" in unknown
        assert "shut: udp port 5060" in unknown


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_is_called_so(host: Host, backend: str) -> None:
    host.apply(backend)
    words = ("why", "198.51.100.5", "--transport", "tcp", "--method", "OPTIONS")
    assert "OPTIONS over tcp to port 5060: reset (TCP)" in host.sipfw(*words).stdout
    answers = json.loads(host.sipfw(*words, "--json").stdout)["answers"]
    assert answers[1]["verdict"] == "reset"
    assert answers[1]["outcomes"][0]["reset"] is True


@pytest.mark.parametrize("backend", ["legacy", "nftables"])
def test_the_commands_that_it_names_work(host: Host, backend: str) -> None:
    host.apply(backend)
    host.sipfw("ban", BANNED)
    for family in (BANNED, "2001:db8::7"):
        assert host.sipfw("why", family).stderr == ""
    options, register = host.sipfw("why", BANNED).stdout.split("\n\n")[2:4]
    # Without the ban an OPTIONS of a stranger is dropped all the same.
    assert "OPTIONS" in options
    assert "unban" not in options
    assert "REGISTER" in register
    for command in ("unban", "trust"):
        (line,) = (line for line in register.splitlines() if f"sipfw {command} " in line)
        host.sipfw(*line.partition("sipfw ")[2].split())
    assert "OPTIONS, REGISTER" in host.sipfw("why", BANNED).stdout.split(": passed")[0]


def test_the_host_part_is_explained_too(host: Host) -> None:
    host.apply("legacy")
    inside = host.sipfw("why", "192.0.2.5", "--to-port", "22", "--transport", "tcp").stdout
    outside = host.sipfw("why", "192.0.2.99", "--to-port", "22").stdout
    assert "a connection over tcp to port 22: passed" in inside
    assert "host.ssh: ssh from the admin networks  [host]" in inside
    assert "a connection over tcp to port 22: dropped" in outside
    assert "it lies in an admin network of the policy" in outside


def test_members_of_the_policy_are_those_of_the_kernel_where_dns_rules(host: Host) -> None:
    policy = host.folder / "policy.yaml"
    policy.write_text("trusted_peers: [{name: a, signalling: [sip.example.invalid]}]\n")
    host.sipfw("apply", "--policy", str(policy), "--backend", "nftables", code=6)
    assert "OPTIONS over udp to port 5060: dropped" in host.sipfw("why", "203.0.113.9").stdout
    host.run("nft", "add element inet sipfw trusted4 { 203.0.113.9 }")
    host.run("nft", "add element inet sipfw trusted-nets4 { 198.51.100.0/25 }")
    for address in ("203.0.113.9", "198.51.100.5"):
        assert "OPTIONS" in host.sipfw("why", address).stdout.split(": passed")[0]
    assert "OPTIONS over udp to port 5060: dropped" in host.sipfw("why", "198.51.100.200").stdout


def test_a_kernel_with_other_rules_is_told(host: Host) -> None:
    host.apply("legacy")
    host.run("iptables-legacy", "-t", "raw", "-D", "SIP_BANNED", "1")
    assert "warning: 1 difference between the kernel's rules" in host.sipfw("why", BANNED).stderr
    host.run("iptables-legacy", "-t", "raw", "-F")
    host.run("iptables-legacy", "-F")
    told = host.sipfw("why", BANNED, code=4).stderr
    assert told == (
        "the applied firewall is not in the kernel: no rule of sipfw is live; run sipfw restore\n"
    )


def test_without_an_apply_there_is_only_the_policy_to_ask(host: Host) -> None:
    told = host.sipfw("why", BANNED, code=4).stderr
    assert told == (
        "no firewall of sipfw is in force; make one live: sipfw apply, or ask about a policy "
        "with --offline\n"
    )
    assert "as if it had just been applied" in host.sipfw("why", BANNED, "--offline").stdout
