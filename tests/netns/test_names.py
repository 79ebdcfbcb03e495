"""Host names on a host with a name server that rotates, lies and hangs: what the kernel trusts."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from namespace_thread import thread_inside

from lab import Lab, namespaces, sip, warm
from lab.name_server import NameServer, Zone, open_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

BACKENDS = ["iptables-legacy", "iptables-nft", "nftables"]
POLICY = """\
admin: {networks: [office.example]}
names: {grace: 1h}
trusted_peers:
  - {name: a, signalling: [carrier.example]}
  - {name: b, signalling: ["old.example:5080"], source_ports: [5080]}
"""


def zone(sbc: list[str] | str, office: list[str] | str) -> Zone:
    return {
        ("carrier.example", "A"): ["203.0.113.80"],
        ("_sip._udp.carrier.example", "SRV"): ["10 10 5070 sbc.carrier.example."],
        ("sbc.carrier.example", "A"): sbc,
        ("old.example", "A"): ["203.0.113.81"],
        ("_sip._udp.old.example", "SRV"): ["10 10 5060 trap.example."],
        ("trap.example", "A"): ["203.0.113.82"],
        ("office.example", "A"): office,
        ("_sip._udp.office.example", "SRV"): ["10 10 5060 trap.example."],
    }


@dataclass(frozen=True)
class Resolving:
    """A namespace whose only name server is the test's own."""

    namespace: str
    folder: Path
    server: NameServer
    backend: str

    def sipfw(self, *words: str, code: int = 0) -> str:
        hosts, resolver = self.folder / "hosts", self.folder / "resolv.conf"
        hosts.write_text("127.0.0.1 localhost\n")
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        done = warm.run(
            self.namespace,
            [words[0], "--root", str(self.folder / "root"), *words[1:]],
            env={"XTABLES_LOCKFILE": str(self.folder / "lock")},
            binds={"/etc/hosts": str(hosts), "/etc/resolv.conf": str(resolver)},
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def apply(self, *more: str, policy: str = POLICY, code: int = 0) -> str:
        path = self.folder / "policy.yaml"
        path.write_text(policy)
        words = ("apply", "--policy", str(path), "--backend", self.backend, "--yes")
        return self.sipfw(*words, *more, code=code)

    def pass_time(self, seconds: int) -> None:
        """Let every moment on file be so much longer ago."""
        path = self.folder / "root/var/lib/sipfw/names.json"
        data = json.loads(path.read_text())
        for item in data["names"].values():
            item["time"] -= seconds
            item["due"] -= seconds
            for member in item["addresses"]:
                if member["missing"] is not None:
                    member["missing"] -= seconds
        path.write_text(json.dumps(data))

    def members(self, name: str) -> set[str]:
        """Return the IPv4 addresses in a set of the kernel."""
        argv = (
            ["nft", "list", "set", "inet", "sipfw", f"{name}4"]
            if self.backend == "nftables"
            else ["ipset", "list", f"sipfw-{name}4"]
        )
        done = namespaces.run(self.namespace, argv)
        assert done.returncode == 0, done.stderr
        return set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", done.stdout))


@contextmanager
def resolving(namespace: str, folder: Path, backend: str, found: Zone) -> Iterator[Resolving]:
    with thread_inside(namespace) as inside:
        sockets = inside.submit(open_sockets, "127.0.0.1", 53).result()
    with NameServer(found, sockets) as server:
        yield Resolving(namespace, folder, server, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trunk_stays_trusted_while_its_answers_rotate_lie_or_hang(
    backend: str, tmp_path: Path
) -> None:
    with Lab(hosts=("carrier", "attacker")) as lab:
        carrier, attacker = (host.address("ip") for host in (lab.carrier, lab.attacker))
        office = ["198.51.100.201"]
        with resolving(lab.switch.namespace, tmp_path, backend, zone([carrier], office)) as host:
            server, sink = host.server, lab.switch.udp_sink(5060)

            def delivered() -> list[int]:
                counts = []
                for sender in (lab.carrier, lab.attacker):
                    sink.clear()
                    target = lab.switch.address_for(sender)
                    options = sip.request(
                        "OPTIONS", source=sender.address("ip"), destination=target
                    )
                    sender.send_udp(target, 5060, [options] * 3, source_port=5090)
                    counts.append(sink.settle())
                return counts

            host.apply()
            assert delivered() == [3, 0]
            assert host.members("admin") == set(office)
            assert host.members("trusted") == {carrier}
            assert "old.example" in {name for name, _ in server.asked}
            assert not {"trap.example", "_sip._udp.office.example"} & {n for n, _ in server.asked}
            # An answer counts for its time; then the name is asked, and the new address is in.
            server.zone |= zone(["203.0.113.9"], ["198.51.100.202"])
            server.asked.clear()
            host.sipfw("refresh", "--due")
            assert server.asked == []
            host.pass_time(300)
            said = host.sipfw("refresh", "--due")
            assert f"'carrier.example': listed no more: {carrier}; trusted for another 1 h" in said
            assert host.members("trusted") == {carrier, "203.0.113.9"}
            assert host.members("admin") == {*office, "198.51.100.202"}
            assert delivered() == [3, 0]
            record = "SRV _sip._udp.carrier.example, sbc.carrier.example:5070"
            assert f"by its name: carrier.example ({record})" in host.sipfw("why", "203.0.113.9")
            gone = json.loads(host.sipfw("why", carrier, "--json"))["names"]
            assert f"carrier.example ({record}; no answer lists it, for " in gone[0]
            assert f"carrier.example is 203.0.113.9 ({record})" in host.sipfw(
                "check", "--policy", str(tmp_path / "policy.yaml")
            )
            for lie in (
                ["0.0.0.0", "127.0.0.1", "192.168.7.7", "224.0.0.9"],
                [lab.switch.address_for(lab.carrier)],
                [attacker, *(f"203.0.113.{n}" for n in range(100))],
                "servfail",
                "hang",
                "garbage",
            ):
                server.zone |= zone(lie, lie)
                said = host.sipfw("refresh")
                assert len(re.findall("warning: trusted_peers: 'carrier.example'", said)) == 1
                assert len(re.findall("warning: admin.networks: 'office.example'", said)) == 1
                assert host.members("trusted") == {carrier, "203.0.113.9"}
                assert host.members("admin") == {*office, "198.51.100.202"}
            assert delivered() == [3, 0]
            # Nobody answers any more: what was listed last stays, what was not goes in time.
            host.pass_time(3600)
            host.sipfw("refresh", "--due")
            assert delivered() == [0, 0]
            assert host.members("trusted") == {"203.0.113.9"}
            assert host.members("admin") == {"198.51.100.202"}
            host.sipfw("verify")


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Resolving]:
    name = f"sipfw-names-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        found = zone(["198.51.100.1"], ["198.51.100.201"])
        with resolving(name, tmp_path, str(request.param), found) as made:
            yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_an_administrator_is_not_shut_out_by_a_name_that_means_nobody(host: Resolving) -> None:
    host.server.zone["office.example", "A"] = "servfail"
    said = host.apply(code=4)
    assert "policy.yaml:1: admin.networks: 'office.example' never had an address" in said
    assert "--force" in said
    assert not (host.folder / "root/var/lib/sipfw/applied.json").exists()
    host.server.zone["office.example", "A"] = ["10.1.2.3"]
    assert "never had an address" in host.apply("--dry-run", code=4)
    wider = POLICY.replace("[office.example]", "[office.example, 192.0.2.0/28]")
    assert "nobody gets in by it until it has" in host.apply(policy=wider, code=6)
    assert "198.51.100.201" not in host.members("admin")
    host.server.zone["office.example", "A"] = ["198.51.100.201"]
    host.sipfw("refresh", "--due")
    assert "198.51.100.201" in host.members("admin")
    # Once it has had an address, an apply without DNS keeps it.
    host.server.zone["office.example", "A"] = "servfail"
    assert "its last good ones stay trusted: 198.51.100.201" in host.apply()
    assert host.members("admin") == {"198.51.100.201"}
    host.sipfw("verify")


def test_a_name_is_trusted_for_a_time_and_followed_while_it_lasts(host: Resolving) -> None:
    policy = "trusted_peers: [{name: a, signalling: [203.0.113.10]}]\nnames: {grace: 10m}\n"
    server = host.server
    server.zone |= {
        ("guest.example", "A"): "servfail",
        ("_sip._tcp.guest.example", "SRV"): ["1 1 5060 g1.guest.example."],
        ("g1.guest.example", "A"): ["198.51.100.31", "203.0.113.10", "192.168.5.5"],
    }
    host.apply(policy=policy)
    assert "'nobody.example' has no address now (no such name)" in host.sipfw(
        "trust", "guest.example", "nobody.example", "--for", "2h", code=4
    )
    said = host.sipfw("trust", "guest.example", "--for", "2h", "--reason", "load test")
    assert "trusted for a time by its name: 198.51.100.31" in said
    assert "trusted: guest.example for 2 h, until " in said
    assert "192.168.5.5 is private" in said
    assert host.members("guests") == {"198.51.100.31"}
    host.sipfw("verify")
    # An operator's ban counts for more than what a resolver says.
    host.sipfw("ban", "198.51.100.66", "--for", "1h")
    server.zone["g1.guest.example", "A"] = ["198.51.100.32", "198.51.100.66"]
    assert "nothing changed" in host.sipfw("refresh", "--due")
    said = host.sipfw("refresh")
    assert "198.51.100.66 is banned by hand" in said
    assert host.members("guests") == {"198.51.100.31", "198.51.100.32"}
    assert host.members("blocked") == {"198.51.100.66"}
    [one, two] = json.loads(host.sipfw("trust", "--list", "--json"))["trusts"]
    assert (one["name"], two["name"], one["reason"]) == ("guest.example",) * 2 + ("load test",)
    assert abs(one["left"] - two["left"]) < 60
    said = host.sipfw("trust", "--end", "198.51.100.31", code=4)
    assert "is trusted by its name; sipfw trust --end guest.example" in said
    # A trust of its own address outlives the name's.
    host.sipfw("trust", "198.51.100.32", "--for", "3h")
    host.pass_time(600)
    server.zone["g1.guest.example", "A"] = "hang"
    assert "trusted no longer, its name has moved on: 198.51.100.31" in host.sipfw("refresh")
    assert host.members("guests") == {"198.51.100.32"}
    assert "not trusted by hand: other.example" in host.sipfw(
        "trust", "--end", "guest.example", "other.example"
    )
    assert host.members("guests") == {"198.51.100.32"}
    server.zone["g1.guest.example", "A"] = ["198.51.100.35"]
    host.sipfw("refresh")
    assert host.members("guests") == {"198.51.100.32"}
    host.sipfw("remove", "--yes")
    assert not list((host.folder / "root/var/lib/sipfw").glob("*.json"))
