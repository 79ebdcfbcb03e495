"""Block lists on a host: a source that misbehaves changes nothing, a good one drops packets."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from feed_server import INJECTION, LOGIN, MODES, PRIVATE
from test_live_commands import Host

from lab import Lab, sip, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.netns

SERVER = Path(__file__).with_name("feed_server.py")
OWN = "198.51.100.200"
PEER = "198.51.100.150"
ADMIN = "192.0.2.0/28"
LISTED = [f"203.0.113.{number}" for number in range(20)] + ["2001:db8:bad::/48", "198.51.100.0/26"]

# How each ends, where the answer is judged by the operator's words alone.
SAID = {
    "404": "answered 404",
    "500": "answered 500",
    "401": "answered 401",
    "304-unasked": "answered 304",
    "empty": "is empty",
    "comments-only": "is empty",
    "private": "is empty",
    "everybody": "is empty",
    "shrunk": "has shrunk from 22 to 3 entries",
    "hang": "no answer within 30 s",
    "slow-body": "no answer within 30 s",
    "slow-head": "no answer within 30 s",
    "endless": "holds more than 32 MB",
    "bomb": "holds more than 32 MB",
    "many-lines": "holds more than 65,536 entries",
    "redirect-loop": "more than 3 redirects",
    "redirect-file": "is redirected to something else than http or https",
    "garbage": "is not a list of addresses",
    "login": "is not a list of addresses",
    "injection": "is not a list of addresses",
    "cut": "cut off",
    "cut-chunk": "cut off",
    "cut-line": "cut off",
    "half-gzip": "cut off",
}
SLOW = ("hang", "slow-body", "slow-head")
QUICK = [mode for mode in SAID if mode not in SLOW and mode != "304-unasked"]
BATCHES = [QUICK[:10], QUICK[10:]]


@dataclass(frozen=True)
class FeedHost:
    """A host with a backend and a web server on its loopback that can misbehave."""

    host: Host
    backend: str
    folder: Path
    port: int

    def url(self, name: str = "list") -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def serve(self, lines: list[str] | bytes, name: str = "list") -> None:
        data = lines if isinstance(lines, bytes) else "".join(f"{x}\n" for x in lines).encode()
        (self.folder / name).write_bytes(data)

    def misbehave(self) -> None:
        (self.folder / "misbehave").touch()

    def policy(self, feeds: list[dict[str, Any]] | None = None, **more: Any) -> str:
        data = {
            "profile": "wholesale",
            "admin": {"networks": [ADMIN]},
            "conntrack": {"max": None},
            "trusted_peers": [{"name": "a", "signalling": [PEER]}],
            "feeds": feeds if feeds is not None else [{"name": "bad", "url": self.url()}],
            **more,
        }
        return self.host.policy(yaml.safe_dump(data))

    def sipfw(self, *words: str, code: int = 0) -> str:
        return self.host.must(*words, code=code).stderr

    def apply(self, *words: str, policy: str | None = None, code: int = 0) -> str:
        chosen = ("--policy", policy or self.policy(), "--backend", self.backend, "--yes")
        return self.sipfw("apply", *chosen, *words, code=code)

    def fetch(self, *words: str, code: int = 0) -> str:
        return self.sipfw("refresh", "--feeds-now", *words, code=code)

    def elements(self, name: str = "bad") -> set[str]:
        """Return what the kernel holds of a list, both families."""
        if self.backend == "nftables":
            found: set[str] = set()
            for part in (f"feed-{name}", f"feed-{name}-nets"):
                for family in "46":
                    shown = self.host.run("nft", "list", "set", "inet", "sipfw", part + family)
                    assert shown.returncode == 0, shown.stderr
                    listed = " ".join(re.findall(r"elements = \{(.*?)\}", shown.stdout, re.DOTALL))
                    found |= {word for word in re.split(r"[,\s]+", listed) if word}
            return found
        saved = [self.host.run("ipset", "save", f"sipfw-feed-{name}{f}").stdout for f in "46"]
        return {line.split()[2] for text in saved for line in text.splitlines() if "add " in line}

    def feeds(self) -> dict[str, dict[str, Any]]:
        done = self.host.must("feeds", "--json")
        return {item["name"]: item for item in json.loads(done.stdout)}

    def verified(self) -> None:
        assert "the live firewall is the applied one" in self.host.sipfw("verify").stdout

    @property
    def state(self) -> Path:
        return self.host.root / "var/lib/sipfw"


@contextmanager
def serving(host: Host, folder: Path) -> Iterator[int]:
    """Run the server inside the namespace until its input ends."""
    argv = ["ip", "netns", "exec", host.name, sys.executable, str(SERVER), str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        try:
            yield int(run.stdout.readline())
        finally:
            run.stdin.close()
            run.wait(timeout=10)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Callable[[], Host]]:
    spaces: list[str] = []

    def make() -> Host:
        name = f"sipfw-feeds-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        spaces.append(name)
        host = Host(name, tmp_path)
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "address", "add", f"{OWN}/32", "dev", "lo")
        return host

    yield make
    for name in spaces:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _made(space: Callable[[], Host], tmp_path: Path, backend: str) -> Iterator[FeedHost]:
    host, folder = space(), tmp_path / "lists"
    folder.mkdir()
    with serving(host, folder) as port:
        made = FeedHost(host, backend, folder, port)
        made.serve(LISTED)
        yield made


@pytest.fixture(params=["iptables-legacy", "nftables"])
def feeds(
    request: pytest.FixtureRequest, space: Callable[[], Host], tmp_path: Path
) -> Iterator[FeedHost]:
    yield from _made(space, tmp_path, str(request.param))


@pytest.fixture
def legacy(space: Callable[[], Host], tmp_path: Path) -> Iterator[FeedHost]:
    yield from _made(space, tmp_path, "iptables-legacy")


def _name(mode: str) -> str:
    return f"m-{mode}"[:16]


def _misbehaves(made: FeedHost, modes: list[str]) -> None:
    """Let all these sources go wrong at once; nothing in the kernel may change."""
    policy = made.policy([{"name": _name(mode), "url": made.url(mode)} for mode in modes])
    made.apply(policy=policy)
    before = {mode: made.elements(_name(mode)) for mode in modes}
    assert all(found == set(LISTED) for found in before.values())
    made.misbehave()
    said = made.fetch()
    assert "nothing changed" in said
    for mode in modes:
        (line,) = (text for text in said.splitlines() if f"feeds.{_name(mode)}: " in text)
        assert SAID[mode] in line
        assert "the last good one stays in force: 22 entries, " in line
        assert made.elements(_name(mode)) == before[mode]
    made.verified()
    shown = made.feeds()
    assert all(SAID[mode] in shown[_name(mode)]["error"] for mode in modes)


def test_no_way_to_misbehave_is_left_out() -> None:
    # The rest is tested where it ends, in test_feed_fetch.
    assert len(SAID) >= 20
    assert set(SAID) <= set(MODES)


@pytest.mark.parametrize("modes", BATCHES, ids=["quick-1", "quick-2"])
def test_a_source_that_misbehaves_changes_nothing(feeds: FeedHost, modes: list[str]) -> None:
    _misbehaves(feeds, modes)


def test_sources_that_hang_cost_half_a_minute_together(legacy: FeedHost) -> None:
    started = time.monotonic()
    _misbehaves(legacy, list(SLOW))
    # One after the other they would take 90 seconds; the other commands need some, too.
    assert time.monotonic() - started < 85


def test_a_list_is_fetched_loaded_followed_and_removed(feeds: FeedHost) -> None:
    assert "feeds.bad" not in feeds.apply()
    assert feeds.elements() == set(LISTED)
    rules = feeds.host.rules()
    record = (feeds.state / "applied.json").read_bytes()
    assert "block lists fetched: 0" in feeds.sipfw("refresh")
    assert "block lists fetched: 1" in feeds.fetch()
    assert (feeds.state / "applied.json").read_bytes() == record
    feeds.serve([*LISTED[1:], "203.0.113.200"])
    said = feeds.fetch()
    assert "203.0.113.200 added" in said
    assert "203.0.113.0 removed" in said
    assert feeds.elements() == {*LISTED[1:], "203.0.113.200"}
    assert feeds.host.rules() == rules
    feeds.verified()
    words = ("--policy", feeds.policy(), "--backend", feeds.backend)
    assert "nothing differs" in feeds.host.must("diff", *words).stdout
    feeds.sipfw("remove", "--yes")
    assert not (feeds.state / "feeds").exists()


def test_a_file_is_as_good_as_an_address(legacy: FeedHost) -> None:
    source = legacy.folder / "list"
    legacy.apply(policy=legacy.policy([{"name": "bad", "file": str(source)}]))
    assert legacy.elements() == set(LISTED)
    source.unlink()
    assert "no such file or directory; the last good one stays" in legacy.fetch()
    assert legacy.elements() == set(LISTED)


def test_what_a_list_says_is_never_carried_out(feeds: FeedHost) -> None:
    feeds.host.run("nft", "add table inet other")
    feeds.host.run("ipset", "create", "other", "hash:ip")
    hostile = "".join(f"{x}\n" for x in LISTED).encode() + INJECTION + LOGIN + PRIVATE
    feeds.serve(hostile)
    feeds.apply()
    # The two whose injection stands behind a comment sign are addresses with a comment.
    assert feeds.elements() == {*LISTED, "203.0.113.9"}
    assert "other" in feeds.host.run("nft", "list", "tables").stdout
    assert feeds.host.run("ipset", "list", "-n", "other").returncode == 0
    left = {item["reason"]: item["count"] for item in feeds.feeds()["bad"]["left_out"]}
    assert left["no address"] >= 10
    assert left["private or nobody's"] == 5
    feeds.verified()


def test_friends_are_never_listed(feeds: FeedHost) -> None:
    feeds.serve([*LISTED, PEER, OWN, "192.0.2.5", "198.51.100.128/25"])
    said = feeds.apply()
    for words in (f"{PEER}/32 (trusted peer a)", f"{OWN}/32 (this host)", f"{ADMIN} (an admin"):
        assert words in said
    held = [ip_network(text) for text in feeds.elements()]
    for friend in (PEER, OWN, "192.0.2.5", "127.0.0.1"):
        assert not any(ip_address(friend) in net for net in held)
    assert any(ip_address("198.51.100.151") in net for net in held)
    feeds.verified()


def test_a_shorter_list_waits_for_the_operator(legacy: FeedHost) -> None:
    legacy.apply()
    legacy.serve(LISTED[:5])
    for _ in range(3):
        said = legacy.fetch()
        assert (
            "has shrunk from 22 to 5 entries; if that is right: sipfw refresh --accept bad" in said
        )
        assert legacy.elements() == set(LISTED)
    assert "no block list other" in legacy.sipfw("refresh", "--accept", "other", code=4)
    legacy.sipfw("refresh", "--accept", "bad")
    assert legacy.elements() == set(LISTED[:5])
    legacy.verified()


def test_an_apply_goes_live_without_the_source_and_the_list_comes_later(feeds: FeedHost) -> None:
    policy = feeds.policy([{"name": "bad", "url": feeds.url("404")}])
    feeds.misbehave()
    said = feeds.apply(policy=policy, code=6)
    assert "warning: feeds.bad: the last try failed: answered 404; there is no copy yet" in said
    assert feeds.elements() == set()
    feeds.verified()
    (feeds.folder / "misbehave").unlink()
    # Not at every tick of the timer.
    assert "block lists fetched: 0" in feeds.sipfw("refresh", code=6)
    feeds.fetch()
    assert feeds.elements() == set(LISTED)
    feeds.verified()


def test_an_expired_list_is_taken_out_and_a_fresh_one_comes_back(legacy: FeedHost) -> None:
    legacy.apply()
    for name in ("bad.json", "bad.tries.json"):
        path = legacy.state / "feeds" / name
        data = json.loads(path.read_text())
        for field in ("time", "good", "tried"):
            if data.get(field):
                data[field] -= 8 * 86400
        path.write_text(json.dumps(data))
    # Nobody is asked: the clock alone decides.
    assert "8 d old and has expired" in legacy.sipfw("refresh", "--cached")
    assert legacy.elements() == set()
    legacy.verified()
    assert "block lists fetched" not in legacy.sipfw("refresh")
    assert legacy.elements() == set(LISTED)


def test_a_lost_copy_empties_no_set(legacy: FeedHost) -> None:
    legacy.apply()
    (legacy.state / "feeds" / "bad.json").unlink()
    (legacy.folder / "list").unlink()
    said = legacy.fetch(code=6)
    assert "nothing changed" in said
    assert legacy.elements() == set(LISTED)
    legacy.verified()


def test_a_boot_has_the_last_good_list_before_the_network(
    feeds: FeedHost, space: Callable[[], Host]
) -> None:
    feeds.apply()
    feeds.serve([*LISTED, "203.0.113.222"])
    feeds.fetch()
    assert "203.0.113" not in (feeds.state / "generations/1/ruleset.json").read_text()
    # A new namespace with the same files is what a restart leaves; nobody serves there.
    again = FeedHost(space(), feeds.backend, feeds.folder, 1)
    again.sipfw("restore")
    assert again.elements() == {*LISTED, "203.0.113.222"}
    again.verified()
    assert "nothing changed" in again.sipfw("refresh", "--cached")


def test_a_boot_with_a_damaged_copy_is_a_boot(legacy: FeedHost, space: Callable[[], Host]) -> None:
    legacy.apply()
    (legacy.state / "feeds" / "bad.json").write_text("[" * 100_000)
    again = FeedHost(space(), legacy.backend, legacy.folder, 1)
    again.sipfw("restore")
    assert again.elements() == set()
    again.verified()


def test_a_rollback_and_a_missed_confirmation_keep_the_lists(legacy: FeedHost) -> None:
    legacy.apply()
    legacy.apply("--confirm", "60", "--set", "bans.duration=9m")
    assert "waits to be confirmed" in legacy.fetch(code=4)
    legacy.sipfw("rollback")
    assert legacy.elements() == set(LISTED)
    legacy.verified()


def test_lists_that_change_at_random_end_as_they_should(feeds: FeedHost) -> None:
    """Networks inside, beside and around each other: what interval sets stumble over."""
    rng = random.Random(5)
    feeds.apply()
    block = ip_network("203.0.113.0/24")
    for _ in range(4):
        chosen = set()
        while len(chosen) < 14:
            length = rng.choice((26, 28, 30, 31, 32))
            start = int(block.network_address) + rng.randrange(256)
            chosen.add(str(ip_network((start >> (32 - length) << (32 - length), length))))
        feeds.serve(sorted(chosen))
        feeds.fetch("--accept", "bad")
        held = [ip_network(text) for text in feeds.elements()]
        wanted = [ip_network(text) for text in chosen]
        for address in block:
            assert any(address in net for net in held) is any(address in net for net in wanted)
        feeds.verified()


@pytest.mark.parametrize("backend", ["iptables-legacy", "nftables"])
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_listed_source_is_dropped_and_counted_and_friends_pass(
    backend: str, family: Any, tmp_path: Path
) -> None:
    with Lab(hosts=("carrier", "attacker", "office")) as lab:
        hosts = (lab.carrier, lab.attacker, lab.office)
        env = {"XTABLES_LOCKFILE": str(tmp_path / "lock")}

        def sipfw(*words: str) -> str:
            whole = [words[0], "--root", str(tmp_path / "root"), *words[1:]]
            done = warm.run(lab.switch.namespace, whole, env=env)
            assert done.returncode == 0, done.stderr
            return done.stdout

        source = tmp_path / "list"
        source.write_text("".join(f"{host.address(family)}\n" for host in hosts))
        data = {
            "trusted_peers": [{"name": "a", "signalling": [lab.carrier.address(family)]}],
            "feeds": [{"name": "bad", "file": str(source)}],
        }
        policy = tmp_path / "policy.yaml"
        policy.write_text(yaml.safe_dump(data))
        sipfw("apply", "--backend", backend, "--policy", str(policy), "--yes")
        office = lab.office.address(family)
        digit = "6" if family == "ip6" else "4"
        if backend == "nftables":
            # The packet path keeps an IPv6 source by its /64; nft masks nothing.
            whole = ip_network((office, 64 if family == "ip6" else 32), strict=False)
            key = whole.network_address
            text = f"add element inet sipfw learned{digit} {{ {key} timeout 600s }}"
            lab.switch.run(["nft", text])
        else:
            lab.switch.run(["ipset", "add", f"sipfw-learned{digit}", office, "timeout", "600"])
        sink = lab.switch.udp_sink(5060)

        def delivered(host: Any) -> int:
            sink.clear()
            target = lab.switch.address_for(host, family)
            call = sip.request("REGISTER", source=host.address(family), destination=target)
            host.send_udp(target, 5060, [call] * 3, source_port=5060)
            return int(sink.settle())

        assert [delivered(host) for host in hosts] == [3, 0, 3]
        (shown,) = json.loads(sipfw("feeds", "--json"))
        assert shown["hits"] == 3
        source.write_text(f"{office}\n")
        sipfw("refresh", "--feeds-now", "--accept", "bad")
        assert delivered(lab.attacker) == 3
        assert delivered(lab.office) == 3
