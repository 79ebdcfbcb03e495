"""Packets while the firewall is replaced: no attack packet arrives and no trusted one is lost.

And what the kernel has learned, banned and counted outlives a re-apply, of the same policy and of
another one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args

import pytest
import yaml
from namespace_thread import thread_inside

from lab import Family, Lab, unavailable_reason
from packets.firewall import Iptables, Nftables
from sipfw.compiler.pipeline import compile_policy
from sipfw.kernel.backend import Backend, Options, backend_of
from sipfw.kernel.forms import Possible
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.kernel.xtables.backend import XtablesBackend
from sipfw.kernel.xtables.legacy import IptablesBackend
from sipfw.lower.nftables import lower
from sipfw.policy.load import Request, load
from sipfw.ruleset import rule as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lab import Host
    from packets.firewall import Count
    from sipfw.ruleset.model import Ruleset

pytestmark = pytest.mark.netns

T = TypeVar("T")
Counts: TypeAlias = "dict[tuple[Family, str], Count]"
FAMILIES: tuple[Family, ...] = get_args(Family)
BACKENDS = ("nftables", "iptables")

# Three senders with this pause between two packets: some 2,000 packets per second.
GAP = 0.0012
CHUNK = 40
OPTIONS = b"OPTIONS sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: x\r\n\r\n"
SCANNER = b"REGISTER sip:198.51.100.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n"
INVITE = b"INVITE sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: PolycomVVX\r\nCall-ID: %d\r\n\r\n"

CARRIER = {"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}
MORE_PEERS = {"name": "more", "signalling": ["192.0.2.77", "2001:db8:77::/64"]}
BASE: Mapping[str, Any] = {"trusted_peers": [CARRIER]}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "unchanged": {},
    "peer": {"trusted_peers": [CARRIER, MORE_PEERS]},
    "rate": {"limits": {"aggregate": "900/second", "hashlimit": {"rate": "7/second"}}},
    "signature": {"scanners": {"user_agents": {"add": ["EvilDialer"]}}},
    "ban": {"bans": {"duration": "2h"}},
    "phones": {"learning": {"registered_ttl": "2h"}},
}
SIP_ONLY = ("identity.", "trusted.", "banned.", "scanner.", "methods.", "unknown.")
# In IPv6 a source is a /64, kept by its first address; an endpoint is one port of one address.
LEARNED = {"ip": "192.0.2.33", "ip6": "2001:db8:3::"}
BANNED = {"ip": "192.0.2.100", "ip6": "2001:db8:2::"}
PHONE = {"ip": "192.0.2.34", "ip6": "2001:db8:3::34"}
DOOR = ("udp", "5060")
SECONDS_LEFT = 900


@dataclass(frozen=True)
class Bench:
    """The lab's switch with one backend, worked by a thread that has moved into its namespace."""

    lab: Lab
    target: Backend
    kernel: Nftables | Iptables
    thread: ThreadPoolExecutor
    folder: Path

    def inside(self, job: Callable[..., T], *arguments: Any) -> T:
        return self.thread.submit(job, *arguments).result()

    def compiled(self, change: Mapping[str, Any]) -> Ruleset:
        file = self.folder / "policy.yaml"
        file.write_text(yaml.safe_dump({**BASE, **change}))
        return compile_policy(load(Request(file=file)))

    def apply(self, change: Mapping[str, Any]) -> None:
        self.inside(self.target.apply, self.compiled(change), Options())

    def swap(self, ruleset: Ruleset) -> Callable[[], object]:
        """Return what makes the ruleset live, without the looks around that take most of the time.

        Those come before it or after it, when the firewall does not change.
        """
        if isinstance(self.target, XtablesBackend):
            return partial(IptablesBackend().apply, self.target.plan(Possible(ruleset)))
        return partial(NftablesBackend().apply, lower(ruleset))

    def counts(self) -> Counts:
        return {
            (family, name): count
            for family in FAMILIES
            for name, count in self.kernel.counts(ir.Family(family)).items()
        }

    def put(self, name: str, address: str, *door: str) -> None:
        """Put a source or an endpoint into a dynamic set as if most of its time were over."""
        place = set_place(self.target, name, address)
        key = " . ".join((address, *door))
        words = (
            ["nft", "add", "element", *place, f"{{ {key} expires {SECONDS_LEFT}s }}"]
            if self.target.name == "nftables"
            else ["ipset", "add", *place, listed(address, *door), "timeout", str(SECONDS_LEFT)]
        )
        self.lab.switch.run(words)

    def peers(self) -> list[str]:
        """Return the members of all sets of trusted peers, however many there are."""
        tool = (
            ["ipset", "list", "-n"] if self.target.name == "iptables" else ["nft", "list", "sets"]
        )
        found = re.findall(r"(?:set |sipfw-)(trusted\S*)([46])\b", self.lab.switch.run(tool).stdout)
        families: Mapping[str, Family] = {"4": "ip", "6": "ip6"}
        return sorted(each for name, digit in found for each in self.members(name, families[digit]))

    def members(self, name: str, family: Family) -> dict[str, int]:
        """Return what is in a set, with the seconds left; -1 where nothing expires."""
        place = set_place(self.target, name, BANNED[family])
        if self.target.name == "iptables":
            shown = self.lab.switch.run(["ipset", "save", *place]).stdout.splitlines()
            lines = [line.split()[2:] for line in shown if line.startswith("add ")]
            return {address: int(rest[1]) if rest else -1 for address, *rest in lines}
        listing = json.loads(self.lab.switch.run(["nft", "-j", "list", "set", *place]).stdout)
        (found,) = [each["set"] for each in listing["nftables"] if "set" in each]
        return dict(element(each) for each in found.get("elem", ()))


def listed(address: str, *door: str) -> str:
    """Write a key as ipset does."""
    return f"{address},{':'.join(door)}" if door else address


def element(item: Any) -> tuple[str, int]:
    fields = item.get("elem", {"val": item}) if isinstance(item, dict) else {"val": item}
    value = fields["val"]
    if isinstance(value, dict) and "concat" in value:
        value = listed(*map(str, value["concat"]))
    elif isinstance(value, dict):
        value = "{addr}/{len}".format(**value["prefix"])
    return value, fields.get("expires", -1)


def set_place(target: Backend, name: str, address: str) -> list[str]:
    digit = "6" if ":" in address else "4"
    nftables = target.name == "nftables"
    return ["inet", "sipfw", f"{name}{digit}"] if nftables else [f"sipfw-{name}{digit}"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker", "office")) as built:
        yield built


@pytest.fixture(params=BACKENDS)
def bench(
    lab: Lab, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    lock = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))

    chosen = backend_of(request.param)
    kernel = (
        Nftables(lab.switch)
        if request.param == "nftables"
        else Iptables(lab.switch, "legacy", lock)
    )
    with thread_inside(lab.switch.namespace) as thread:
        built = Bench(lab, chosen, kernel, thread, tmp_path)
        yield built
        kernel.clear()
    lab.reset()


def trusted_calls() -> Iterator[bytes]:
    return (INVITE % number for number in itertools.count())


def keep_sending(lab: Lab, host: Host, messages: Iterator[bytes], stop: threading.Event) -> int:
    """Send until told to stop, both families in turn; return the number of packets."""
    sent = 0
    for family in itertools.cycle(FAMILIES):
        if stop.is_set():
            break
        chunk = list(itertools.islice(messages, CHUNK))
        host.send_udp(lab.switch.address_for(host, family), 5060, chunk, source_port=5060, gap=GAP)
        sent += len(chunk)
    return sent


def test_no_packet_slips_through_and_none_is_lost_while_policies_change(bench: Bench) -> None:
    swaps = 50 if bench.target.name == "nftables" else 15
    jobs = [bench.swap(bench.compiled(change)) for change in CHANGES.values()]
    bench.inside(jobs[0])
    for family in FAMILIES:
        bench.put("banned", BANNED[family])
    lab, stop = bench.lab, threading.Event()
    sink = lab.switch.udp_sink(5060, keep=100_000)
    streams = (
        (lab.carrier, trusted_calls()),
        (lab.attacker, itertools.cycle([OPTIONS, SCANNER])),
        (lab.office, itertools.repeat(INVITE % 0)),
    )
    with ThreadPoolExecutor(len(streams)) as senders:
        sending = [senders.submit(keep_sending, lab, *stream, stop) for stream in streams]
        try:
            for number in range(1, swaps + 1):
                bench.inside(jobs[number % len(jobs)])
        finally:
            stop.set()
        trusted, *attacks = [each.result() for each in sending]
    sink.settle()
    arrived = sink.arrivals()
    carrier = set(CARRIER["signalling"])
    assert [each for each in arrived if each.source not in carrier] == []
    # Compared as sorted lists, so that a doubled packet shows as well.
    assert sorted(each.payload for each in arrived) == sorted(
        itertools.islice(trusted_calls(), trusted)
    )
    assert min(trusted, *attacks) > 20 * swaps
    # They met what they were meant to meet, and not some rule before it.
    counts = bench.counts()
    for name in ("scanner.options-udp", "scanner.ua.friendly-scanner", "banned.drop"):
        assert min(counts[family, name].packets for family in FAMILIES) > 5 * swaps


def send_some_of_everything(bench: Bench) -> None:
    sink = bench.lab.switch.udp_sink(5060)
    for family in FAMILIES:
        for host, messages in (
            (bench.lab.carrier, [INVITE % 1] * 4),
            (bench.lab.attacker, [OPTIONS] * 3 + [SCANNER] * 2),
            (bench.lab.office, [INVITE % 2] * 5),
        ):
            host.send_udp(bench.lab.switch.address_for(host, family), 5060, messages)
    assert [each.payload for each in sink.wait(8)] == [INVITE % 1] * 8
    assert sink.settle() == 8


def fill(bench: Bench) -> None:
    for family in FAMILIES:
        bench.put("learned", LEARNED[family])
        bench.put("banned", BANNED[family])
        bench.put("registered", PHONE[family], *DOOR)


def assert_dynamic_sets_stand(bench: Bench, longest: int = SECONDS_LEFT) -> None:
    for family in FAMILIES:
        phone = listed(PHONE[family], *DOOR)
        kept = {"learned": LEARNED[family], "banned": BANNED[family], "registered": phone}
        for name, key in kept.items():
            members = bench.members(name, family)
            assert list(members) == [key]
            most = longest if name == "banned" else SECONDS_LEFT
            assert most - 60 <= members[key] <= most


def assert_static_sets_hold(bench: Bench, policy: Mapping[str, Any]) -> None:
    peers = policy.get("trusted_peers", [CARRIER])
    assert bench.peers() == sorted(each for peer in peers for each in peer["signalling"])


def assert_counters_stand(bench: Bench, before: Counts) -> None:
    after = bench.counts()
    # Only what the changes are about may be gone or new.
    assert {name for _, name in set(before) ^ set(after)} <= {
        "scanner.ua.user-evildialer",
        "stream.ua.user-evildialer",
    }
    for key in set(before) & set(after):
        # Other rules count neighbour discovery as well, which nobody can stop.
        if key[1].startswith(SIP_ONLY):
            assert after[key] == before[key], key
        else:
            assert after[key] >= before[key], key


def test_what_was_learned_banned_and_counted_stands(bench: Bench) -> None:
    bench.apply({})
    fill(bench)
    send_some_of_everything(bench)
    before = bench.counts()
    expected = {
        "trusted.accept": 4,
        "scanner.options-udp": 3,
        "scanner.ua.friendly-scanner": 2,
        "banned.drop": 5,
    }
    for family in FAMILIES:
        assert {name: before[family, name].packets for name in expected} == expected
    for change in CHANGES.values():
        bench.apply(change)
        assert_counters_stand(bench, before)
        assert_dynamic_sets_stand(bench)
        assert_static_sets_hold(bench, change)


def test_a_shorter_ban_lets_nobody_go_early_and_nobody_stay_longer(bench: Bench) -> None:
    bench.apply({})
    fill(bench)
    bench.apply({"bans": {"duration": 300}})
    if bench.target.name == "nftables":
        assert_dynamic_sets_stand(bench, longest=300)
    else:
        # An ipset element may have more time than its set gives to new ones.
        assert_dynamic_sets_stand(bench)
