"""Bans and trusts by hand with packets: the wall, the guest, what brings them back, who is safe."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from test_refresh import MOVED, NAMES, NamedHost, addresses, made

from lab import Lab, sip, unavailable_reason, warm

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab import Sink

__all__ = ["made"]

pytestmark = pytest.mark.netns

POLICY = """\
profile: default
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: carrier-a, signalling: [203.0.113.10, "2001:db8:5::/64"], media: [203.0.113.128/25]}
  - {name: carrier-b, signalling: [203.0.113.20], source_ports: [5060]}
signalling: {udp: [5060], tcp: [5060], tls: [5061]}
limits: {per_source: {rate: 20/second, burst: 30}}
"""
ATTACKER = "198.51.100.66"
# No address of the switch lies in its /64, which would save it from a ban.
ATTACKER6 = "2001:db8:67::42"
PREFIX = "2001:db8:67::/64"
FLOOD = 200


@dataclass(frozen=True)
class Guarded:
    """The switch of the lab with a firewall of one backend."""

    lab: Lab
    folder: Path
    backend: str

    def run(
        self, *words: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        whole = [words[0], "--root", str(self.root), *words[1:]]
        own = {"XTABLES_LOCKFILE": str(self.folder / "lock"), "SIPFW_BACKEND": self.backend}
        plain = {**own, **(env or {})}
        namespace = self.lab.switch.namespace
        done = warm.run(namespace, whole, stdin, env=plain, timeout=120)
        assert "Traceback" not in done.stderr
        assert "fault in sipfw" not in done.stderr
        return done

    def must(self, *words: str, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        done = self.run(*words, **more)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def apply(self, *more: str, code: int = 0) -> str:
        policy = self.folder / "policy.yaml"
        policy.write_text(POLICY)
        return self.must("apply", "--policy", str(policy), "--yes", *more, code=code).stderr

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def book(self) -> Path:
        return self.root / "var/lib/sipfw/bans.json"

    def put(self, name: str, address: str, *door: str) -> None:
        """Put a source or an endpoint into a dynamic set, as if the packet path had done it."""
        number = "6" if ":" in address else "4"
        if self.backend == "nftables":
            # The packet path masks the address; nft does not.
            key = " . ".join((address if door else first_of(address), *door))
            place = ["nft", "add", "element", "inet", "sipfw", f"{name}{number}"]
            self.lab.switch.run([*place, f"{{ {key} timeout 600s }}"])
        else:
            key = f"{address},{':'.join(door)}" if door else address
            place = ["ipset", "add", f"sipfw-{name}{number}", key]
            self.lab.switch.run([*place, "timeout", "600"])

    def holds(self, name: str, address: str, *door: str) -> bool:
        number = "6" if ":" in address else "4"
        if self.backend == "nftables":
            key = " . ".join((address if door else first_of(address), *door))
            argv = ["nft", "get", "element", "inet", "sipfw", f"{name}{number}", f"{{ {key} }}"]
        else:
            key = f"{address},{':'.join(door)}" if door else address
            argv = ["ipset", "test", f"sipfw-{name}{number}", key]
        return self.lab.switch.run(argv, check=False).returncode == 0

    def listed(self) -> dict[str, dict[str, Any]]:
        bans = json.loads(self.must("bans", "--json").stdout)
        assert bans["format"] == 1
        return {item["address"]: item for item in bans["bans"]}

    def restart(self) -> None:
        """Empty the kernel, as a restart of the host does."""
        switch = self.lab.switch
        for tool in ("iptables-legacy-restore", "ip6tables-legacy-restore"):
            switch.run([tool], "*raw\nCOMMIT\n*filter\nCOMMIT\n")
        switch.run(["nft", "flush", "ruleset"])
        switch.run(["ipset", "destroy"], check=False)

    def counted(self, rule_id: str) -> int:
        report = json.loads(self.run("verify", "--json").stdout)
        return sum(_packets(report, rule_id))


def first_of(address: str) -> str:
    """Return the address by which the rules keep a source: in IPv6 the first of its /64."""
    whole = ip_network((address, 64 if ":" in address else 32), strict=False)
    return str(whole.network_address)


def _packets(node: Any, rule_id: str) -> Iterator[int]:
    if isinstance(node, dict):
        if node.get("id") == rule_id:
            yield sum(_numbers(node))
        else:
            for value in node.values():
                yield from _packets(value, rule_id)
    elif isinstance(node, list):
        for value in node:
            yield from _packets(value, rule_id)


def _numbers(node: dict[str, Any]) -> Iterator[int]:
    for key, value in node.items():
        if key == "packets" and isinstance(value, int):
            yield value
        elif isinstance(value, dict):
            yield from _numbers(value)


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker")) as built:
        built.attacker.add_address("198.51.100.67")
        built.attacker.add_address(ATTACKER6)
        built.switch.run(["ip", "route", "add", PREFIX, "dev", "attacker"])
        yield built


@pytest.fixture(params=["iptables-legacy", "nftables"])
def guarded(request: pytest.FixtureRequest, shared_lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    host = Guarded(shared_lab, tmp_path, str(request.param))
    host.apply()
    yield host
    host.must("remove")
    host.restart()
    shared_lab.reset()


@pytest.fixture
def legacy(shared_lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    host = Guarded(shared_lab, tmp_path, "iptables-legacy")
    host.apply()
    yield host
    host.must("remove")
    host.restart()
    shared_lab.reset()


def request_of(method: str, source: str) -> bytes:
    return sip.request(method, source=source, destination="198.51.100.1")


def arrives(lab: Lab, sink: Sink, method: str = "REGISTER", source: str = ATTACKER) -> bool:
    there = lab.switch.address_for(lab.attacker, "ip6" if ":" in source else "ip")
    sink.clear()
    lab.attacker.send_udp(there, sink.port, request_of(method, source), source=source)
    return sink.settle(0.1) == 1


def connects(lab: Lab, port: int) -> bool:
    there = lab.switch.address_for(lab.attacker)
    try:
        lab.attacker.tcp_connect(there, port, timeout=0.5).close()
    except TimeoutError:
        return False
    return True


def flood(lab: Lab, sink: Sink, method: str = "REGISTER") -> int:
    there = lab.switch.address_for(lab.attacker)
    sink.clear()
    payloads = [request_of(method, ATTACKER)] * FLOOD
    lab.attacker.send_udp(there, sink.port, payloads, source_port=5077)
    return sink.settle(0.2)


def test_a_ban_by_hand_is_a_wall_for_every_transport_and_method(guarded: Guarded) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060)
    lab.switch.tcp_sink(5060)
    lab.switch.tcp_sink(5061)
    attacker6 = ATTACKER6
    guarded.put("learned", ATTACKER)
    guarded.put("learned", attacker6)
    assert arrives(lab, sink, "OPTIONS")
    assert arrives(lab, sink, source=attacker6)
    assert connects(lab, 5060)
    assert connects(lab, 5061)
    said = guarded.must("ban", ATTACKER, attacker6, "--for", "2h", "--reason", "toll fraud").stderr
    assert f"banned: {ATTACKER} for 2 h, until " in said
    assert "generation 2" in said
    # Whatever the switch answers late, it does not end a ban by hand.
    guarded.put("learned", ATTACKER)
    guarded.put("pending", ATTACKER, "udp", "5060")
    guarded.put("registered", ATTACKER, "udp", "5060")
    for method in ("REGISTER", "OPTIONS", "INVITE", "ACK"):
        assert not arrives(lab, sink, method)
        assert not arrives(lab, sink, method, attacker6)
    assert not connects(lab, 5060)
    assert not connects(lab, 5061)
    assert arrives(lab, sink, source="198.51.100.67")
    assert guarded.counted("blocked.drop") >= 8
    listed = guarded.listed()
    assert set(listed) == {ATTACKER, first_of(attacker6)}
    assert (listed[ATTACKER]["layer"], listed[ATTACKER]["reason"]) == ("manual", "toll fraud")
    assert 7000 < listed[ATTACKER]["left"] <= 7200
    guarded.must("diff", "--policy", str(guarded.folder / "policy.yaml"))
    guarded.must("verify")
    said = guarded.must("unban", ATTACKER, attacker6, "198.51.100.99").stderr
    assert f"free again: {ATTACKER}\n" in said
    assert f"free again: {first_of(attacker6)}/64\n" in said
    assert "not banned: 198.51.100.99\n" in said
    assert arrives(lab, sink)
    assert arrives(lab, sink, source=attacker6)
    assert connects(lab, 5060)
    assert not guarded.book.exists()


def test_in_ipv6_a_ban_is_about_the_whole_prefix(guarded: Guarded) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060)
    source, prefix, other = ATTACKER6, PREFIX, "2001:db8:67::abcd"
    said = guarded.must("ban", other, "--for", "1h").stderr
    assert f"banned: {prefix} for 1 h, until " in said
    assert not arrives(lab, sink, source=source)
    assert "blocked.drop" in guarded.must("why", source).stdout
    assert f"the {prefix} ban ends" in guarded.must("why", source).stdout
    assert guarded.must("bans").stdout.splitlines()[1].startswith(f"{prefix} ")
    assert {item["source"] for item in guarded.listed().values()} == {prefix}
    # The same prefix once more is the same ban, whoever of it is named.
    guarded.must("ban", source, "--for", "2h")
    assert len(guarded.listed()) == 1
    assert (
        "is not one source: here that is a /64"
        in guarded.must("ban", "2001:db8::/48", code=4).stderr
    )
    assert f"free again: {prefix}" in guarded.must("unban", prefix).stderr
    assert arrives(lab, sink, source=source)
    assert not guarded.book.exists()


def test_an_older_file_of_single_addresses_is_still_read(guarded: Guarded) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060)
    source = ATTACKER6
    now = int(time.time())
    plain = {"since": now, "until": now + 600, "reason": "old", "who": "uid 0"}
    book = {"format": 1, "entries": [{"address": source, **plain}]}
    guarded.book.write_text(json.dumps(book))
    guarded.apply()
    assert not arrives(lab, sink, source=source)
    assert guarded.listed()[first_of(source)]["reason"] == "old"
    guarded.must("unban", f"{first_of(source)}77")
    assert arrives(lab, sink, source=source)
    assert not guarded.book.exists()


def test_the_prefix_of_this_host_cannot_be_banned(legacy: Guarded) -> None:
    said = legacy.must("ban", legacy.lab.attacker.address6, code=4).stderr
    assert "2001:db8:66::/64 cannot be banned: 2001:db8:66::1 in it is this host's own" in said


def test_who_shares_a_prefix_with_a_friend_cannot_be_banned(guarded: Guarded) -> None:
    session = "2001:db8:77::5 50022 2001:db8:1::1 22"
    said = guarded.must("ban", "2001:db8:77::6", code=4, env={"SSH_CONNECTION": session}).stderr
    assert "2001:db8:77::/64 cannot be banned: 2001:db8:77::5 in it is logged in by ssh" in said
    guarded.must("trust", "2001:db8:78::5", "--for", "1h")
    said = guarded.must("ban", "2001:db8:78::6", code=4).stderr
    assert "2001:db8:78::5 in 2001:db8:78::/64 is trusted for a time; end that first" in said


def test_an_unban_opens_shut_ports_and_bans_over_tcp(guarded: Guarded) -> None:
    for name in ("banned", "banned-tcp", "failures", "failures-learned", "barred"):
        guarded.put(name, ATTACKER)
    for door in (("udp", "5060"), ("tcp", "49152")):
        guarded.put("shut", ATTACKER, *door)
        guarded.put("shut", "198.51.100.67", *door)
    listed = guarded.listed()
    assert set(listed) == {ATTACKER}
    assert listed[ATTACKER]["transports"] == ["udp", "tcp"]
    assert "UDP, TCP" in guarded.must("bans").stdout
    guarded.must("unban", ATTACKER)
    assert guarded.listed() == {}
    for name in ("banned", "banned-tcp", "failures", "failures-learned", "barred"):
        assert not guarded.holds(name, ATTACKER)
    for door in (("udp", "5060"), ("tcp", "49152")):
        assert not guarded.holds("shut", ATTACKER, *door)
        assert guarded.holds("shut", "198.51.100.67", *door)
    assert "free again: 198.51.100.67" in guarded.must("unban", "198.51.100.67").stderr
    assert "not banned: 198.51.100.67" in guarded.must("unban", "198.51.100.67").stderr


def test_a_banned_phone_is_no_longer_learned(guarded: Guarded) -> None:
    sink = guarded.lab.switch.udp_sink(5060)
    guarded.put("learned", ATTACKER)
    guarded.must("ban", ATTACKER)
    guarded.must("unban", "--all")
    assert not arrives(guarded.lab, sink, "OPTIONS")
    assert arrives(guarded.lab, sink)


def test_an_unban_ends_a_ban_of_the_packets_and_forgets_failures(guarded: Guarded) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060, {"REGISTER": 403})
    for _ in range(15):
        arrives(lab, sink)
        time.sleep(0.02)
    found = guarded.listed()[ATTACKER]
    assert found["by"] == "sipfw"
    if guarded.backend == "nftables":
        assert found["layer"] == "automatic"
    else:
        assert (found["layer"], found["reason"]) == ("replies", "the switch refused its logins")
    assert not arrives(lab, sink, "INVITE")
    assert f"free again: {ATTACKER}" in guarded.must("unban", ATTACKER).stderr
    assert "nobody is banned" in guarded.must("bans").stderr
    assert arrives(lab, sink, "INVITE")
    # One more failure is one, and not the eleventh.
    assert arrives(lab, sink)
    assert guarded.listed() == {}


def test_a_guest_passes_a_flood_and_is_a_stranger_again_when_his_time_is_over(
    guarded: Guarded,
) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060)
    assert flood(lab, sink) < FLOOD
    assert ATTACKER in guarded.listed()
    guarded.must("ban", ATTACKER)
    said = guarded.must("trust", ATTACKER, "--for", "1h", "--reason", "load test").stderr
    assert f"its ban by hand is ended: {ATTACKER}" in said
    assert f"trusted: {ATTACKER} for 1 h, until " in said
    assert guarded.listed() == {}
    assert not guarded.book.exists()
    assert flood(lab, sink) == FLOOD
    assert flood(lab, sink, "OPTIONS") == FLOOD
    assert guarded.listed() == {}
    policy = str(guarded.folder / "policy.yaml")
    # Nobody is banned by hand any more, so an apply takes the wall down, and nothing else.
    told = guarded.must("diff", "--policy", policy, code=1).stdout
    changes = [line for line in told.splitlines() if line.startswith("removed")]
    assert changes
    assert all("by hand" in line or "SIP_BLOCKED" in line for line in changes)
    guarded.apply()
    guarded.must("diff", "--policy", policy)
    assert flood(lab, sink) == FLOOD
    guarded.must("verify")
    refused = guarded.must("ban", ATTACKER, code=4).stderr
    assert f"sipfw trust --end {ATTACKER}" in refused
    guarded.must("trust", ATTACKER, "--for", "2s")
    assert flood(lab, sink) == FLOOD
    time.sleep(2.5)
    assert flood(lab, sink) < FLOOD
    assert "nobody is trusted" in guarded.must("trust", "--list").stderr
    # The rule goes with the next apply, and not before anybody looks.
    guarded.must("verify")
    guarded.apply()
    guarded.must("diff", "--policy", policy)
    assert "trusted.guest" not in guarded.must("verify", "--hits").stdout


def test_a_trust_ends_by_hand(guarded: Guarded) -> None:
    sink = guarded.lab.switch.udp_sink(5060)
    guarded.must("trust", ATTACKER, "--for", "1h", "--reason", "test call")
    (guest,) = json.loads(guarded.must("trust", "--list", "--json").stdout)["trusts"]
    assert (guest["address"], guest["reason"], guest["in_force"]) == (ATTACKER, "test call", True)
    said = guarded.must("trust", "--end", ATTACKER, "198.51.100.99").stderr
    assert f"trusted no longer: {ATTACKER}" in said
    assert "not trusted by hand: 198.51.100.99" in said
    assert not arrives(guarded.lab, sink, "OPTIONS")
    assert "nobody is trusted" in guarded.must("trust", "--list").stderr


def test_a_boot_brings_bans_and_trusts_back_with_the_time_that_is_left(guarded: Guarded) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060)
    guarded.must("ban", ATTACKER, "--for", "2h", "--reason", "before the boot")
    guarded.must("trust", "198.51.100.67", "--for", "1h")
    guarded.restart()
    assert arrives(lab, sink)
    time.sleep(1.1)
    said = guarded.must("restore").stderr
    assert "warning: 1 " not in said
    assert not arrives(lab, sink)
    assert arrives(lab, sink, "OPTIONS", "198.51.100.67")
    found = guarded.listed()[ATTACKER]
    assert 7000 < found["left"] < 7200
    assert found["reason"] == "before the boot"
    guarded.must("verify")


def test_a_new_policy_and_a_rollback_keep_bans_by_hand(guarded: Guarded) -> None:
    lab = guarded.lab
    sink = lab.switch.udp_sink(5060)
    guarded.must("ban", ATTACKER)
    guarded.apply("--set", "bans.size=4096")
    assert not arrives(lab, sink)
    guarded.must("rollback")
    assert not arrives(lab, sink)
    assert guarded.listed()[ATTACKER]["layer"] == "manual"
    # The first generation has no wall: on probation, and told so.
    said = guarded.must("rollback", "1").stderr
    assert "1 ban by hand is on probation only" in said
    assert not arrives(lab, sink, "INVITE")
    assert arrives(lab, sink)
    assert guarded.listed()[ATTACKER]["layer"] == "manual"
    guarded.must("ban", "198.51.100.67")
    assert not arrives(lab, sink)
    assert not arrives(lab, sink, source="198.51.100.67")


def test_friends_of_the_switch_cannot_be_banned(legacy: Guarded) -> None:
    session = f"{ATTACKER} 50022 198.51.100.1 22"
    names = (
        "203.0.113.10",
        "2001:db8:5::77",
        "203.0.113.200",
        "203.0.113.20",
        "192.0.2.7",
        "198.51.100.1",
        "127.0.0.1",
        "::1",
        "224.0.0.9",
        "0.0.0.0",
        "255.255.255.255",
        ATTACKER,
    )
    said = legacy.must("ban", *names, "198.51.100.67", code=4, env={"SSH_CONNECTION": session})
    lines = said.stderr.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(names)
    assert (
        f"belongs to trusted peer carrier-a ({legacy.folder}/policy.yaml:3: trusted_peers)"
        in lines[0]
    )
    assert "trusted peer carrier-b" in lines[3]
    assert "an admin network" in lines[4]
    assert "this host's own" in lines[5]
    assert "logged in by ssh (SSH_CONNECTION" in lines[-2]
    assert lines[-1] == "nothing was changed"
    assert legacy.listed() == {}
    listing = "198.51.100.67\n203.0.113.10\n"
    assert legacy.must("ban", "--import", "-", code=4, stdin=listing).stderr.startswith("203.0")
    assert not legacy.book.exists()
    legacy.must("diff", "--policy", str(legacy.folder / "policy.yaml"))
    refused = legacy.must(
        "trust", "203.0.113.10", "198.51.100.1", "127.0.0.1", "--for", "1h", code=4
    )
    assert refused.stderr.count("there is nothing to trust") == 3


def test_a_client_of_ssh_cannot_be_banned_even_if_the_policy_shuts_him_out(
    legacy: Guarded,
) -> None:
    lab = legacy.lab
    lab.switch.tcp_sink(22)
    legacy.must("remove")
    connection = lab.attacker.tcp_connect("198.51.100.1", 22, source="198.51.100.67")
    legacy.apply("--force")
    said = legacy.must("ban", "198.51.100.67", code=4).stderr
    assert "198.51.100.67 is logged in by ssh (connected now)" in said
    # A new rule for others needs no --force: for ssh nothing changes.
    legacy.must("ban", ATTACKER)
    connection.close()


NASTY = "$(reboot) `id`; -j ACCEPT # \"x\" 'y' {ü} \\n"


def test_export_and_import_round_trip_with_injection_strings(guarded: Guarded) -> None:
    sink = guarded.lab.switch.udp_sink(5060)
    guarded.must("ban", ATTACKER, "--for", "2h", "--reason", NASTY)
    guarded.must("ban", ATTACKER6, "--for", "30m")
    before = guarded.listed()
    for form in ((), ("--json",)):
        file = guarded.folder / f"bans{len(form)}"
        guarded.must("bans", "--export", str(file), *form)
        assert file.stat().st_mode & 0o777 == 0o600
        shown = guarded.must("bans", "--export", "-", *form).stdout
        assert len(shown) == len(file.read_text())
        assert ATTACKER in shown
        guarded.must("unban", "--all")
        assert guarded.listed() == {}
        assert arrives(guarded.lab, sink)
        guarded.must("ban", "--import", str(file))
        after = guarded.listed()
        reasons = {a: item["reason"] for a, item in after.items()}
        assert reasons == {ATTACKER: NASTY, first_of(ATTACKER6): ""}
        assert all(before[a]["left"] - 60 < item["left"] for a, item in after.items())
        assert all(item["left"] <= before[a]["left"] for a, item in after.items())
        assert not arrives(guarded.lab, sink)
    text = f"198.51.100.67\n{ATTACKER}; nft flush ruleset\n-F\n198.51.100.68 1h \x1b]0;x\x07\n"
    said = guarded.must("ban", "--import", "-", code=2, stdin=text).stderr
    assert [line.split(":")[1].strip() for line in said.splitlines()[:-1]] == [
        "line 2",
        "line 3",
        "line 4",
    ]
    assert "\x1b" not in said
    assert "198.51.100.67" not in guarded.listed()


def test_an_export_takes_the_place_of_no_device(legacy: Guarded) -> None:
    for path in ("/dev/null", "/dev/stdout", str(legacy.folder), "/nowhere/x"):
        assert "--export" in legacy.must("bans", "--export", path, code=2).stderr


def test_more_than_the_set_takes_is_refused(guarded: Guarded) -> None:
    guarded.apply("--set", "bans.size=2")
    guarded.must("ban", ATTACKER, ATTACKER6)
    said = guarded.must("ban", "198.51.100.67", "198.51.100.68", code=4).stderr
    assert "3 bans by hand in IPv4 are more than the set takes (2)" in said
    guarded.must("ban", "198.51.100.67")
    said = guarded.apply("--set", "bans.size=1")
    assert "1 ban by hand is not in force: the set takes 1" in said
    assert len(guarded.listed()) == 2


def test_a_thousand_bans_are_one_order(guarded: Guarded) -> None:
    text = "\n".join(f"2001:db8:99:{n:x}::1 2h" for n in range(1000))
    started = time.monotonic()
    said = guarded.must("ban", "--import", "-", stdin=text).stderr
    assert "and 980 more" in said
    assert len(guarded.listed()) == 1000
    guarded.must("unban", "--all")
    assert guarded.listed() == {}
    assert time.monotonic() - started < 60


def test_a_damaged_book_is_told_and_hinders_nobody(legacy: Guarded) -> None:
    sink = legacy.lab.switch.udp_sink(5060)
    legacy.must("ban", ATTACKER, "--reason", "lost")
    legacy.book.write_text("{not json")
    found = legacy.must("bans", "--json")
    assert "bans.json: cannot be read" in found.stderr
    (lost,) = json.loads(found.stdout)["bans"]
    assert (lost["layer"], lost["reason"], lost["by"]) == ("manual", "", "unknown")
    assert not arrives(legacy.lab, sink)
    assert "bans.json: cannot be read" in legacy.must("ban", "198.51.100.67").stderr
    assert set(json.loads(legacy.must("bans", "--json").stdout)["bans"][0]) == set(lost)
    assert "cannot be read" not in legacy.must("bans").stderr
    legacy.must("unban", ATTACKER)
    assert arrives(legacy.lab, sink)


def test_a_set_that_somebody_took_away_leaves_the_book_as_it_was(guarded: Guarded) -> None:
    guarded.must("ban", ATTACKER)
    before = guarded.book.read_text()
    guarded.restart()
    said = guarded.must("ban", "198.51.100.67", code=4).stderr
    assert "see sipfw verify" in said
    assert guarded.book.read_text() == before
    guarded.must("unban", ATTACKER)
    guarded.must("restore")
    assert guarded.listed() == {}


def test_a_waiting_change_is_not_confirmed_by_a_ban(legacy: Guarded) -> None:
    sink = legacy.lab.switch.udp_sink(5060)
    legacy.apply("--confirm", "60", "--set", "bans.size=4096")
    said = legacy.must("ban", ATTACKER, code=4).stderr
    assert "waits to be confirmed" in said
    assert not legacy.book.exists()
    legacy.must("confirm")
    legacy.must("ban", ATTACKER)
    legacy.apply("--confirm", "60", "--set", "bans.size=8192")
    legacy.must("ban", "198.51.100.67")
    legacy.must("rollback")
    assert not arrives(legacy.lab, sink)
    assert not arrives(legacy.lab, sink, source="198.51.100.67")


def test_removing_the_firewall_forgets_bans_and_trusts(legacy: Guarded) -> None:
    legacy.must("ban", ATTACKER)
    legacy.must("trust", "198.51.100.67", "--for", "1h")
    legacy.must("remove")
    assert not list(legacy.root.glob("var/lib/sipfw/*.json"))
    for words in (("bans",), ("ban", ATTACKER), ("unban", "--all"), ("trust", "--list")):
        assert "no firewall of sipfw is in force" in legacy.must(*words, code=4).stderr


def test_a_firewall_without_sets_says_so(legacy: Guarded) -> None:
    legacy.apply("--no-ipset")
    assert "--no-ipset" in legacy.must("ban", ATTACKER, code=4).stderr
    assert "--no-ipset" in legacy.must("bans", code=4).stderr


@pytest.mark.parametrize("backend", ["iptables-legacy", "iptables-nft", "nftables"])
def test_the_new_generation_has_the_addresses_that_names_have_now(
    made: Callable[[str], NamedHost],
    backend: str,
) -> None:
    named = made(backend)
    named.apply(NAMES)
    named.refresh(MOVED)
    named.host.must("ban", "203.0.113.250")
    assert named.elements() == addresses(MOVED)
    named.verified()
    assert "nothing changed" in named.refresh(MOVED)


def test_a_new_generation_without_the_answers_of_dns_keeps_the_peers(
    made: Callable[[str], NamedHost],
) -> None:
    named = made("iptables-legacy")
    named.apply(NAMES)
    (named.host.root / "var/lib/sipfw/names.json").unlink()
    named.host.must("ban", "203.0.113.250")
    assert named.elements() == addresses(NAMES)
    named.verified()
