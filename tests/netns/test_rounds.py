"""Rounds of apply and rollback while a switch works: calls, media, scanners and a banned source.

No trusted packet is lost, no attack packet arrives, and media flows both ways all the time.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from shared_host import SharedHost
from test_swaps import BANNED, FAMILIES, INVITE, OPTIONS, SCANNER, keep_sending

from lab import Lab, unavailable_reason
from sipfw.ruleset import rule as ir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    from lab import Host, Sink

    Stream: TypeAlias = tuple[Host, Iterator[bytes]]

pytestmark = pytest.mark.netns

# Apply and rollback in turn; iptables-nft commits in transactions as nftables does, so fewer do.
ROUNDS = {"iptables-legacy": 20, "nftables": 20, "iptables-nft": 6}
MEDIA_END = str(Path(__file__).with_name("media_end.py"))
MEDIA_PORTS = {"ip": 10000, "ip6": 10002}
# Both ends of both calls together send some 200 packets per second, as G.711 does.
MEDIA_GAP = 0.02
CALL = b"OPTIONS sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: carrier\r\nCall-ID: %d\r\n\r\n"

CARRIER = {"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}
FIRST: dict[str, Any] = {
    "media": {"sources": "peers"},
    "admin": {"networks": ["203.0.113.240/28", "2001:db8:ad::/64"]},
    "trusted_peers": [{**CARRIER, "media": ["203.0.113.0/24", "2001:db8:5::/64"]}],
}
# With other layers, sets, limits, signatures and ports of media.
SECOND: dict[str, Any] = {
    "switch": "asterisk",
    "media": {"sources": "peers"},
    "admin": {"networks": ["203.0.113.224/27", "2001:db8:ad::/64"]},
    "trusted_peers": [
        {"name": "more", "signalling": ["203.0.113.64/26", "2001:db8:77::/64"]},
        {**CARRIER, "media": ["203.0.113.0/25", "2001:db8:5::/64"]},
    ],
    "bans": {"duration": "2h"},
    "limits": {"aggregate": "900/second", "connlimit": None},
    "scanners": {"user_agents": {"add": ["EvilDialer"]}},
}


@dataclass(frozen=True, slots=True)
class MediaEnd:
    """A process at one end of a call."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, namespace: str, own: str, peer: str, port: int) -> MediaEnd:
        command = [sys.executable, MEDIA_END, own, peer, str(port), str(MEDIA_GAP)]
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return cls(process)

    def bound(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "bound\n"

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def result(self) -> tuple[int, list[int]]:
        """Return how many datagrams it sent, and the numbers of those that it got."""
        said, _ = self.process.communicate(timeout=30)
        found = json.loads(said)
        return found["sent"], found["arrived"]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass(frozen=True, slots=True)
class Bench:
    """The lab, and sipfw with the first policy at work on its switch."""

    lab: Lab
    host: SharedHost

    @property
    def rounds(self) -> int:
        return ROUNDS[self.host.backend]

    def round(self, number: int) -> None:
        if number % 2:
            self.host.must("rollback")
        else:
            self.host.apply(SECOND)

    @contextmanager
    def calls(self) -> Iterator[list[tuple[MediaEnd, MediaEnd]]]:
        """Have media flow between the carrier and the switch, one call for each family."""
        carrier, switch = self.lab.carrier, self.lab.switch
        with ExitStack() as stack:
            calls = []
            for family in FAMILIES:
                out, back = carrier.address(family), switch.address_for(carrier, family)
                port = MEDIA_PORTS[family]
                one = MediaEnd.start(carrier.namespace, out, back, port)
                stack.callback(one.end)
                other = MediaEnd.start(switch.namespace, back, out, port)
                stack.callback(other.end)
                calls.append((one, other))
            for end in itertools.chain.from_iterable(calls):
                end.bound()
            # The carrier speaks first, so that the switch's media is an answer.
            for end in (*(one for one, _ in calls), *(other for _, other in calls)):
                end.say("go\n")
            yield calls

    @contextmanager
    def traffic(self, streams: list[Stream]) -> Iterator[list[int]]:
        """Send all streams at once while the block runs; then the list has how many packets."""
        stop = threading.Event()
        sent: list[int] = []
        with ThreadPoolExecutor(len(streams)) as senders:
            sending = [senders.submit(keep_sending, self.lab, *each, stop) for each in streams]
            try:
                yield sent
            finally:
                stop.set()
        sent += [each.result() for each in sending]


@pytest.fixture(params=ROUNDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker", "office")) as lab:
        host = SharedHost(lab.switch, request.param, tmp_path)
        host.apply(FIRST)
        for family in FAMILIES:
            host.kernel.add("banned", BANNED[family])
        yield Bench(lab, host)


def calls_of_the_carrier() -> Iterator[bytes]:
    return ((INVITE if number % 2 else CALL) % number for number in itertools.count())


def assert_media_was_never_interrupted(calls: list[tuple[MediaEnd, MediaEnd]], least: int) -> None:
    for end in itertools.chain.from_iterable(calls):
        end.say("stop\n")
    for pair in calls:
        (sent, heard), (sent_back, heard_back) = (end.result() for end in pair)
        assert min(sent, sent_back) > least
        # Equal lists: none lost, none doubled, none out of order.
        assert heard_back == list(range(sent))
        assert heard == list(range(sent_back))


def assert_only_the_carrier_arrived(sink: Sink, sent: int) -> None:
    sink.settle()
    arrived = sink.arrivals()
    carrier = set(CARRIER["signalling"])
    assert [each for each in arrived if each.source not in carrier] == []
    # Compared as sorted lists, so that a doubled packet shows as well.
    expected = sorted(itertools.islice(calls_of_the_carrier(), sent))
    assert sorted(each.payload for each in arrived) == expected


def test_rounds_lose_nothing_and_let_nothing_in(bench: Bench) -> None:
    lab = bench.lab
    sink = lab.switch.udp_sink(5060, keep=200_000)
    streams: list[Stream] = [
        (lab.carrier, calls_of_the_carrier()),
        (lab.attacker, itertools.cycle([OPTIONS, SCANNER])),
        (lab.office, itertools.repeat(INVITE % 0)),
    ]
    with bench.calls() as calls:
        with bench.traffic(streams) as sent:
            for number in range(bench.rounds):
                bench.round(number)
        assert_media_was_never_interrupted(calls, 10 * bench.rounds)
    trusted, *attacks = sent
    assert_only_the_carrier_arrived(sink, trusted)
    assert min(trusted, *attacks) > 20 * bench.rounds
    # They met what they were meant to meet, and not some rule before it.
    for family in FAMILIES:
        if (family, bench.host.backend) == ("ip6", "iptables-nft"):
            # ip6tables-nft 1.8.9 cannot set counters, so changed chains count from 0 again.
            continue
        counts = bench.host.kernel.counts(ir.Family(family))
        for name in ("scanner.options-udp", "scanner.ua.friendly-scanner", "banned.drop"):
            assert counts[name].packets > 5 * bench.rounds, name
