"""`sipfw why` says before each packet what the kernel will do with it, from the kernel's own state.

One firewall is loaded for all cases of a policy, and what they leave behind in limits stays there:
`why` has to read it. Every prediction is held against what arrives, and in the end against the
counter of each rule that it said would decide.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from netns.namespace_thread import thread_inside
from packets.cases import Case, limited
from packets.cases import request as build
from packets.identity_cases import TRUSTED_CASES
from packets.limit_cases import LIMIT_CASES
from packets.test_cases import CASES
from sipfw.cli.why_words import wait_of
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.nftables import lower
from sipfw.monitor.why.live import ExplainedFirewall as Applied
from sipfw.monitor.why.live import LiveKernel
from sipfw.monitor.why.packets import PacketQuestion, PacketTransport
from sipfw.monitor.why.state import SourceState
from sipfw.monitor.why.why import explain
from sipfw.policy.load import Request, load
from sipfw.ruleset.match import (
    ConnectionsAbove,
    CountAbove,
    RateAbove,
    RateWithin,
    SeenAtLeast,
    VolumeAbove,
)
from sipfw.simulate.state import Limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from lab import Family, Lab
    from lab.handles import Sink
    from packets.firewall import Firewall
    from sipfw.monitor.why.state import LimitReading
    from sipfw.monitor.why.why import Explanation
    from sipfw.simulate.outcomes import Outcome

pytestmark = pytest.mark.netns

_LIMITS = RateWithin | ConnectionsAbove | RateAbove | SeenAtLeast | CountAbove | VolumeAbove

SIP = 5060
# Of /proc/net, which is the namespace of the process, a thread that has moved has its own.
PROC_NET = Path("/proc/thread-self/net")
# Seconds that no test takes between a question and its packet.
LONG = 1.0
SLOW = {"rate": "2/minute", "burst": 3}

# Rates of the case table refill while a test looks; these do not.
SLOW_CASES = [
    Case(
        f"slow-{name}",
        (build("REGISTER"),),
        delivered=most,
        rule=rule,
        counted=8 - most,
        policy=policy,
        repeat=8,
    )
    for name, rule, most, policy in (
        ("port", "rate.hashlimit", 3, limited(hashlimit=SLOW)),
        ("source", "ban.drop", 3, {**limited(per_source=SLOW), "bans": {"probation": False}}),
        ("subnet", "rate.per-subnet", 3, limited(per_subnet=SLOW)),
        ("method", "rate.method-register", 3, limited(methods={"register": SLOW})),
        ("window", "recent.exceeded", 5, limited(recent={"hits": 5, "seconds": 60})),
    )
]


def by_policy(cases: Sequence[Case]) -> dict[str, list[Case]]:
    found = defaultdict(list)
    for case in cases:
        found[yaml.safe_dump(dict(case.policy))].append(case)
    return found


GROUPS = by_policy([*CASES, *SLOW_CASES])
SETLESS = by_policy([*TRUSTED_CASES, *LIMIT_CASES, *SLOW_CASES])


class Tally:
    """What each rule was predicted to decide, against what it counted."""

    def __init__(self) -> None:
        self.least: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._elsewhere: Counter[str] = Counter()

    def add(self, *possible: Outcome) -> None:
        deciders = [{rule.id for rule in end.trace.deciders} for end in possible]
        self.most.update(set.union(*deciders))
        self.least.update(set.intersection(*deciders))

    @contextlib.contextmanager
    def leave_out(self, firewall: Firewall, family: Family) -> Iterator[None]:
        before = firewall.counts(family)
        yield
        after = firewall.counts(family)
        for rule_id, count in after.items():
            self._elsewhere[rule_id] += count.packets - before[rule_id].packets

    def faults(self, firewall: Firewall, family: Family) -> list[str]:
        counts = firewall.counts(family)
        found = {name: counts[name].packets - self._elsewhere[name] for name in self.most}
        return [
            f"{family} {name} decided {found[name]}, not {self.least[name]} to {most}"
            for name, most in self.most.items()
            if not self.least[name] <= found[name] <= most
        ]


class Asked(NamedTuple):
    """The ends of a connection, none over UDP; those of the message; when a bucket refills."""

    connection: list[Outcome]
    message: list[Outcome]
    refills: float


class Oracle:
    """Asks `why` in the switch's namespace."""

    def __init__(
        self, policy: str, lab: Lab, firewall: Firewall, folder: Path, *, ipset: bool = True
    ) -> None:
        file = folder / "policy.yaml"
        file.write_text(policy)
        self.ruleset = compile_policy(load(Request(file=file)))
        self.firewall = firewall
        self.nftables = firewall.own_table
        self.ipset = ipset
        backend = "nftables" if self.nftables else "iptables"
        applied = Applied(self.ruleset, "policy", backend, ipset=ipset)
        self._kernel = LiveKernel(applied, PROC_NET)
        self._switch = lab.switch
        self._thread: ThreadPoolExecutor = thread_inside(lab.switch.namespace)
        self._matches = {
            rule.id: match
            for chain in self.ruleset.chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, _LIMITS)
        }

    def close(self) -> None:
        self._thread.shutdown()

    def ask(self, question: PacketQuestion) -> Asked:
        answer, source = self._thread.submit(self._ask, question).result()
        for case in answer.cases:
            for end in case.outcomes:
                for assumption in end.when:
                    if not self._of_a_port(assumption.rule_id, source):
                        self._require_unreadable(assumption.rule_id, source)
                    else:
                        assert question.source_port is None, assumption
        ends = [list(case.outcomes) for case in answer.cases]
        first = ends.pop(0) if question.transport is PacketTransport.TCP else []
        met = {step.rule_id for each in (first, *ends) for end in each for step in end.trace.steps}
        waits = [
            wait_of(bucket, reading.limit) or 0.0
            for reading in source.readings
            if reading.rule_id in met and isinstance(reading.limit, RateAbove | SeenAtLeast)
            for bucket in reading.buckets
            if reading.standing is Limit.EXCEEDED
        ]
        assert all(wait > 0 for wait in waits), "a bucket with a packet left is not exceeded"
        refills = min(waits, default=LONG)
        return Asked(first, ends[0] if ends else [], refills)

    def _ask(self, question: PacketQuestion) -> tuple[Explanation, SourceState]:
        source = SourceState(self.ruleset, question.source, question.source_port, self._kernel)
        return explain(question, source), source

    def _require_unreadable(self, rule_id: str, source: SourceState) -> None:
        """Fail where something is said to be unknown that the kernel shows."""
        match = self._matches[rule_id]
        if isinstance(match, RateWithin):
            return
        reading = source.reading(rule_id)
        if isinstance(match, ConnectionsAbove):
            assert reading.connections is not None
            assert reading.connections >= match.count
            return
        if isinstance(match, CountAbove | VolumeAbove):
            self._require_no_counter(reading)
            return
        assert self.nftables, f"{rule_id} can be read"
        assert reading.buckets, f"{rule_id} has counted nothing"

    def _of_a_port(self, rule_id: str, source: SourceState) -> bool:
        """Tell whether it is unknown only because nobody has said which port is meant."""
        match = self._matches.get(rule_id)
        if isinstance(match, CountAbove | VolumeAbove):
            entry = source.reading(rule_id).entry
            return entry is not None and entry.present is None
        return match is None

    def _require_no_counter(self, reading: LimitReading) -> None:
        """An ipset shows what it has counted, nftables and xt_recent only who is in."""
        assert reading.entry is not None
        assert reading.entry.present is not False, f"{reading.rule_id} has counted nothing"
        assert self.nftables or not self.ipset, f"{reading.rule_id} can be read"

    def settled(self, ends: list[Outcome]) -> bool:
        """Tell whether what is not known changes nothing here.

        No test reaches a limit of all sources, and a count only leads into a set.
        """
        unknown = [self._matches.get(item.rule_id) for end in ends for item in end.when]
        return all(isinstance(match, RateWithin | CountAbove) for match in unknown)

    def flush(self) -> None:
        """Empty what can be emptied: dynamic sets, windows and the bucket sets of nftables."""
        dynamic = [item.name for item in self.ruleset.sets if item.dynamic]
        if self.nftables:
            names = [item.name for item in lower(self.ruleset).sets if item.metered]
            names += [f"{name}{number}" for name in dynamic for number in "46"]
            lines = "".join(f"flush set inet sipfw {name}\n" for name in set(names))
            self._switch.run(["nft", "-f", "-"], lines)
            return
        lists = {item.list for item in self._matches.values() if isinstance(item, SeenAtLeast)}
        ours = [f"sipfw-{name}{number}" for name in (*dynamic, *lists) for number in "46"]
        if self.ipset:
            self._switch.run(["ipset", "restore"], "".join(f"flush {name}\n" for name in ours))
            return
        # A set that no rule asks in this form has no list.
        there = self._switch.run(["ls", "/proc/net/xt_recent"]).stdout.split()
        files = [f"/proc/net/xt_recent/{name}" for name in ours if name in there]
        if files:
            self._switch.run(["tee", *files], "/\n")


@dataclass(frozen=True)
class Experiment:
    """One case in one family."""

    case: Case
    family: Family
    lab: Lab
    oracle: Oracle
    sink: Sink
    tally: Tally

    @property
    def ends(self) -> tuple[str, str]:
        host = self.lab.hosts[self.case.role]
        return host.address(self.family), self.lab.switch.address_for(host, self.family)

    def run(self) -> None:
        """Predict and send two rounds, then send the others at once, then predict one more."""
        self.oracle.flush()
        own, target = self.ends
        for name in self.case.members:
            self.oracle.firewall.add(name, own)
        messages = [build(own, target) for build in self.case.messages]
        if self.case.transport == "tcp":
            with self.tally.leave_out(self.oracle.firewall, self.family):
                self._connect(messages)
            return
        rounds = self.case.repeat if self.case in SLOW_CASES else min(self.case.repeat, 2)
        for _ in range(rounds):
            self._round(messages)
        if self.case.repeat > max(rounds, 3):
            with self.tally.leave_out(self.oracle.firewall, self.family):
                self._send(messages * (self.case.repeat - rounds))
                self.sink.settle(quiet=0.02)
            self._round(messages)

    def _send(self, messages: list[bytes]) -> None:
        host = self.lab.hosts[self.case.role]
        host.send_udp(self.ends[1], SIP, messages, source_port=self.case.ports[0])

    def _round(self, messages: list[bytes]) -> None:
        """Predict and send each once: the same bytes again could come true for another one."""
        self.sink.clear()
        expected = [(message, self._predicted(message)) for message in messages]
        self.sink.settle(quiet=0.02)
        self._require([arrival.payload for arrival in self.sink.arrivals()], expected)

    def _predicted(self, message: bytes) -> bool | None:
        """Send one packet and return whether `why` said that it passes; None where it could not."""
        asked = self.oracle.ask(self._question(message, PacketTransport.UDP))
        ends = asked.message
        if asked.refills < LONG:
            # The bucket may refill before the packet comes: the clock tells, no counter can.
            with self.tally.leave_out(self.oracle.firewall, self.family):
                begun = time.monotonic()
                asked = self.oracle.ask(self._question(message, PacketTransport.UDP))
                self._send([message])
                took = time.monotonic() - begun
            if not asked.message[0].trace.dropped:
                return True if self.oracle.settled(asked.message) else None
            return False if took < asked.refills else None
        self._send([message])
        if self.oracle.settled(ends):
            self.tally.add(ends[0])
            return not ends[0].trace.dropped
        self.tally.add(*ends)
        return None

    def _connect(self, messages: list[bytes]) -> None:
        self.sink.clear()
        question = self._question(messages[0], PacketTransport.TCP)
        opening = self.oracle.ask(question).connection
        host, port = self.lab.hosts[self.case.role], self.case.ports[0]
        sure = self.oracle.settled(opening) and not opening[0].trace.dropped
        patience = 5.0 if sure else 0.3
        try:
            connection = host.tcp_connect(self.ends[1], SIP, source_port=port, timeout=patience)
        except TimeoutError:
            assert not sure, self.case
            return
        assert not opening[0].trace.dropped, self.case
        expected = []
        for message in messages:
            ends = self.oracle.ask(self._question(message, PacketTransport.TCP)).message
            expected.append((message, not ends[0].trace.dropped))
            connection.send(message)
            self.sink.settle(quiet=0.02)
            if ends[0].trace.dropped:
                break  # what follows on this connection waits for it
        self._require([arrival.payload for arrival in self.sink.arrivals()], expected)
        connection.close()
        for node in self.lab.nodes:
            # The next case wants the same port, which would be kept for a minute.
            node.run(["ss", "-K", "-t", "state", "connected"])

    def _question(self, message: bytes, transport: PacketTransport) -> PacketQuestion:
        return PacketQuestion(
            ip_address(self.ends[0]), self.case.ports[0], SIP, transport, payload=message
        )

    def _require(self, arrived: list[bytes], expected: Sequence[tuple[bytes, bool | None]]) -> None:
        waiting = list(arrived)
        for message, passes in expected:
            here = bool(waiting) and waiting[0] == message and passes is not False
            assert here or not passes, f"{self.case}, {self.family}: {message!r} did not arrive"
            if here:
                waiting.pop(0)
        assert waiting == [], f"{self.case}, {self.family}: {waiting} arrived"


def agree(
    policy: str, cases: Sequence[Case], oracle: Oracle, lab: Lab, families: Sequence[Family]
) -> None:
    """Load the policy and try its cases: in these families, or in one by turns."""
    oracle.firewall.load(yaml.safe_load(policy))
    sinks = {"udp": lab.switch.udp_sink(SIP), "tcp": lab.switch.tcp_sink(SIP)}
    tallies: dict[Family, Tally] = {"ip": Tally(), "ip6": Tally()}
    with contextlib.closing(oracle):
        for number, case in enumerate(cases):
            for family in families or [("ip", "ip6")[number % 2]]:
                Experiment(case, family, lab, oracle, sinks[case.transport], tallies[family]).run()
    faults = [
        fault
        for family, tally in tallies.items()
        for fault in tally.faults(oracle.firewall, family)
    ]
    assert faults == []


@pytest.mark.parametrize("policy", list(GROUPS), ids=lambda text: GROUPS[text][0].name)
def test_why_says_what_the_kernel_does(
    policy: str, lab: Lab, firewall: Firewall, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The flavours of iptables have the same kernel modules: each case in one family will do.
    flavour = request.node.callspec.params["firewall"] == "nft-flavour"
    oracle = Oracle(policy, lab, firewall, tmp_path)
    agree(policy, GROUPS[policy], oracle, lab, () if flavour else ("ip", "ip6"))


@pytest.mark.parametrize("policy", list(SETLESS), ids=lambda text: SETLESS[text][0].name)
def test_why_reads_the_lists_that_stand_in_for_sets(
    policy: str, lab: Lab, setless_firewall: Firewall, tmp_path: Path
) -> None:
    oracle = Oracle(policy, lab, setless_firewall, tmp_path, ipset=False)
    agree(policy, SETLESS[policy], oracle, lab, ())


def test_connections_that_are_open_are_counted(
    lab: Lab, firewall: Firewall, tmp_path: Path
) -> None:
    policy = yaml.safe_dump(dict(limited(connlimit={"per_source": 2})))
    oracle = Oracle(policy, lab, firewall, tmp_path)
    firewall.load(yaml.safe_load(policy))
    lab.switch.tcp_sink(SIP)
    target = lab.switch.address_for(lab.attacker)
    question = PacketQuestion(ip_address(lab.attacker.address4), None, SIP, PacketTransport.TCP)
    for _ in range(2):
        (end,) = oracle.ask(question).connection
        assert not end.trace.dropped
        lab.attacker.tcp_connect(target, SIP)
    # Nobody can read the kernel's list, so both ends are told; one of them comes true.
    ends = {end.trace.dropped for end in oracle.ask(question).connection}
    assert ends == {False, True}
    with pytest.raises(TimeoutError):
        lab.attacker.tcp_connect(target, SIP, timeout=0.3)
    oracle.close()
