"""The engine for iptables of the nf_tables flavour: all of it, or what was there before."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from iptables_bench import (
    FOREIGN,
    GUIDE_SCRIPT,
    PLAN,
    RECENT_TOO_HIGH,
    in_set,
    rule,
    table,
    with_extra,
)
from scratch_namespace import NamespaceRunner, scratch_namespace
from test_live_commands import EXAMPLES, Host

from sipfw.errors import ApplyError, BackendError
from sipfw.host.runner import Completed, SubprocessRunner
from sipfw.kernel.xtables.restore import RestoreBackend
from sipfw.lower.xtables import Family, XChain, XPlan, XSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

pytestmark = pytest.mark.netns

BACKEND = ("--backend", "iptables-nft")
# nft 1.0.6 lists this rule of nft as it is; iptables-nft-save 1.8.9 as `-p tcp -j ACCEPT`.
NATIVE = "tcp dport { 7, 9 } counter packets 5 bytes 55 accept"
SENDER = """\
import socket, sys, time
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"OPTIONS", (address, 5060))
"""
LEAK = """\
import socket, sys, time
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(("127.0.0.1", 5060))
sink.setblocking(False)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent = 0
print("started", flush=True)
deadline = time.monotonic() + 30
while not sys.stdin.closed and time.monotonic() < deadline:
    for _ in range(20):
        sender.sendto(b"OPTIONS", ("127.0.0.1", 5060))
        sent += 1
    time.sleep(0.005)
    import select
    if select.select([sys.stdin], [], [], 0)[0]:
        break
received = 0
while True:
    try:
        sink.recv(100)
    except BlockingIOError:
        break
    received += 1
print(sent, received)
"""


@dataclass
class Meddler:
    """A runner that lets somebody else act after a program, or answers for the program."""

    inner: NamespaceRunner
    after: Mapping[str, Callable[[NamespaceRunner], object]] = field(default_factory=dict)
    no_scratch: bool = False
    seen: list[str] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        if self.no_scratch and "sipfw.kernel.namespace" in argv:
            return Completed(1, "", "no scratch network namespace: Operation not permitted (EPERM)")
        done = self.inner.run(argv, stdin=stdin, timeout=timeout, env=env)
        name = " ".join([argv[0], *(["--test"] if "--test" in argv else [])])
        self.seen.append(name)
        if name in self.after and self.seen.count(name) == 1:
            self.after[name](self.inner)
        return done


@dataclass
class Bench:
    """A namespace with the engine in it."""

    run: NamespaceRunner

    @property
    def backend(self) -> RestoreBackend:
        return RestoreBackend(self.run)

    def saved(self, *options: str) -> list[str]:
        text = "".join(self.run.ok(f"{p}-nft-save", *options) for p in ("iptables", "ip6tables"))
        return [line for line in text.splitlines() if not line.startswith("#")]

    def sets(self) -> list[str]:
        lines = self.run.ok("ipset", "save").splitlines()
        return sorted(re.sub(r" (initval|bucketsize) \S+", "", line) for line in lines)

    def state(self) -> tuple[list[str], list[str], list[str]]:
        """Return rules, sets, and what nft lists, which puts a chain made anew last."""
        listing = self.run.ok("nft", "-s", "list", "ruleset").splitlines()
        return self.saved(), self.sets(), sorted(line for line in listing if line[:1] != "#")

    def counted(self, family: Family, mark: str) -> int:
        program = "iptables" if family is Family.IP else "ip6tables"
        lines = self.run.ok(f"{program}-nft-save", "-c").splitlines()
        (line,) = [line for line in lines if mark in line]
        return int(line[1:].partition(":")[0])

    def send(self) -> None:
        self.run.ok(sys.executable, "-c", SENDER)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    lock = str(tmp_path / "xtables.lock")
    monkeypatch.setenv("XTABLES_LOCKFILE", lock)
    with scratch_namespace("restore", lock) as runner:
        yield Bench(runner)


def test_applied_twice_is_the_same_and_removed_is_nothing(bench: Bench) -> None:
    assert bench.backend.apply(PLAN).tables == ("ip raw", "ip6 raw")
    first = bench.state()
    assert len(bench.backend.read().our_chains()) == 6
    assert [jump.hook for jump in bench.backend.read().our_jumps()] == ["PREROUTING"] * 2
    bench.backend.apply(PLAN)
    assert bench.state() == first
    bench.backend.remove()
    assert bench.run.ok("nft", "list", "tables") == ""
    assert bench.sets() == []


def test_counters_outlive_a_reapply_in_both_families(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.send()
    counts = [bench.counted(family, "sipfw:sip.end#") for family in Family]
    assert counts == [3, 3]
    result = bench.backend.apply(with_extra(rule("more")))
    assert [bench.counted(family, "sipfw:sip.end#") for family in Family] == counts
    assert [bench.counted(family, "sipfw:jump#") for family in Family] == counts
    assert not [note for note in result.notes if "count from 0" in note]


def test_a_changed_chain_keeps_its_counters_or_says_that_it_does_not(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.send()

    def longer(family: Family) -> object:
        whole = table(family)
        chain = whole.chains[0]
        return replace(
            whole, chains=(XChain(chain.name, (*chain.rules, rule("late"))), *whole.chains[1:])
        )

    plan = XPlan(PLAN.sets, tuple(longer(family) for family in Family))  # type: ignore[misc]  # replace() returns the same type
    result = bench.backend.apply(plan)
    assert bench.counted(Family.IP, "sipfw:sip.end#") == 3
    lost = bench.counted(Family.IP6, "sipfw:sip.end#") != 3
    told = [note for note in result.notes if "count from 0" in note]
    assert len(told) == lost
    assert all(note.startswith("ip6tables-nft: this version") for note in told)


def test_foreign_rules_counters_and_native_rules_stay(bench: Bench) -> None:
    bench.run.ok("iptables-nft-restore", "-c", stdin=FOREIGN)
    bench.run.ok("nft", "add", "rule", "ip", "raw", "PREROUTING", NATIVE)

    def foreign() -> list[str]:
        lines = bench.run.ok("nft", "list", "ruleset").splitlines()
        kept = [line for line in lines if line.startswith("\t\t") and "sipfw:" not in line]
        return [line for line in kept if not line.startswith("\t\ttype ") or "drop" in line]

    before = foreign()
    assert any(NATIVE in line for line in before)
    whole = bench.state()
    bench.backend.apply(PLAN)
    assert [line for line in foreign() if line in before] == before
    bench.backend.apply(with_extra(rule("more"), family=Family.IP))
    assert [line for line in foreign() if line in before] == before
    bench.backend.remove()
    assert bench.state() == whole


def test_a_table_that_iptables_cannot_read_is_refused(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.run.ok("nft", "add rule ip raw PREROUTING ct state established accept")
    before = bench.run.ok("nft", "list", "ruleset")
    for attempt in (bench.backend.apply, bench.backend.check):
        with pytest.raises(BackendError, match="cannot read table ip raw"):
            attempt(PLAN)
    with pytest.raises(BackendError, match="cannot read table ip raw"):
        bench.backend.remove()
    assert bench.run.ok("nft", "list", "ruleset") == before


def test_the_rehearsal_finds_what_the_kernel_refuses(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    plan = with_extra(rule("bad", RECENT_TOO_HIGH))
    for attempt in (bench.backend.apply, bench.backend.check):
        with pytest.raises(BackendError, match="cannot run the rules: ip6tables-nft-restore") as e:
            attempt(plan)
        assert not isinstance(e.value, ApplyError)
    assert bench.state() == before


def test_check_changes_nothing(bench: Bench) -> None:
    bench.backend.check(PLAN)
    assert bench.state() == ([], [], [])


def test_without_a_rehearsal_a_refused_family_restores_the_other(bench: Bench) -> None:
    bench.run.ok("iptables-nft-restore", "-c", stdin=FOREIGN)
    bench.run.ok("nft", "add", "rule", "ip", "raw", "PREROUTING", NATIVE)
    bench.backend.apply(PLAN)
    bench.run.ok("ipset", "add", "sipfw-banned4", "198.51.100.66", "timeout", "0")
    before = bench.state()
    bad = with_extra(rule("bad", RECENT_TOO_HIGH))
    plan = replace(bad, tables=(table(Family.IP, extra=[rule("more")]), bad.tables[1]))
    with pytest.raises(ApplyError, match="change rules: ip6tables-nft-restore") as info:
        RestoreBackend(Meddler(bench.run, no_scratch=True)).apply(plan)
    assert info.value.restored
    assert bench.state() == before


def test_a_first_apply_that_fails_leaves_nothing(bench: Bench) -> None:
    plan = with_extra(rule("bad", RECENT_TOO_HIGH))
    with pytest.raises(ApplyError) as info:
        RestoreBackend(Meddler(bench.run, no_scratch=True)).apply(plan)
    assert info.value.restored
    assert bench.state() == ([], [], [])


def test_without_a_rehearsal_the_result_is_the_same(bench: Bench) -> None:
    RestoreBackend(Meddler(bench.run, no_scratch=True)).apply(PLAN)
    first = bench.state()
    RestoreBackend(Meddler(bench.run, no_scratch=True)).apply(PLAN)
    assert bench.state() == first
    bench.backend.apply(PLAN)
    assert bench.state() == first


MEDDLING = {
    "rule deleted": "iptables-nft -t raw -D SIP 1",
    "jump deleted": "iptables-nft -t raw -F PREROUTING",
    "rule of theirs": "iptables-nft -t raw -I SIP 1 -j ACCEPT",
}


@pytest.mark.parametrize("name", MEDDLING)
def test_read_back_difference_restores(bench: Bench, name: str) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    words = MEDDLING[name].split()
    meddler = Meddler(bench.run, after={"ip6tables-nft-restore": lambda run: run.ok(*words)})
    with pytest.raises(ApplyError, match="read back: ip raw") as info:
        RestoreBackend(meddler).apply(with_extra(rule("more")))
    assert info.value.restored
    assert bench.state() == before


def test_a_rule_edited_under_its_comment_is_mended(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    (jump,) = [line for line in bench.saved() if line.startswith("-A PREROUTING")][:1]
    number = ["-R PREROUTING 1", *jump.split()[2:]]
    words = " ".join(number).replace("5060", "5070").replace('"', "").split()
    bench.run.ok("iptables-nft", "-t", "raw", *words)
    end = next(line for line in bench.saved() if "sipfw:sip.end" in line).replace('"', "").split()
    bench.run.ok("iptables-nft", "-t", "raw", "-R", "SIP", "2", "-s", "192.0.2.1", *end[2:])
    assert bench.state() != before
    bench.backend.apply(PLAN)
    assert bench.state() == before


def test_the_jump_stays_where_it_stands(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.run.ok("iptables-nft", "-t", "raw", "-I", "PREROUTING", "1", "-s", "198.51.100.1")
    before = bench.state()
    bench.backend.apply(with_extra(rule("more")))
    bench.backend.apply(PLAN)
    assert bench.state() == before


def test_pasted_script_is_refused_then_adopted(bench: Bench) -> None:
    bench.run.ok("iptables-nft-restore", stdin=GUIDE_SCRIPT)
    before = bench.state()
    for attempt in (bench.backend.apply, bench.backend.check):
        with pytest.raises(BackendError, match="chain ip filter SIP_TRUSTED") as info:
            attempt(PLAN)
        assert "--adopt" in str(info.value)
    assert bench.state() == before
    bad = with_extra(rule("bad", RECENT_TOO_HIGH))
    with pytest.raises(ApplyError) as failed:
        RestoreBackend(Meddler(bench.run, no_scratch=True)).apply(bad, adopt=True)
    assert failed.value.restored
    assert bench.state() == before
    result = bench.backend.apply(PLAN, adopt=True)
    assert "ip filter: took over chain SIP_TRUSTED" in result.notes
    filtered = bench.run.ok("iptables-nft-save", "-t", "filter").splitlines()
    assert [line for line in filtered if line.startswith("-A")] == [
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        "-A INPUT -j DROP",
    ]


def test_a_colliding_chain_is_refused_then_adopted(bench: Bench) -> None:
    text = "*raw\n:SIP - [0:0]\n-A SIP -s 192.0.2.1 -j DROP\n-A PREROUTING -j SIP\nCOMMIT\n"
    bench.run.ok("ip6tables-nft-restore", stdin=text.replace("192.0.2.1", "2001:db8::1"))
    with pytest.raises(BackendError, match="not made by sipfw: chain ip6 raw SIP"):
        bench.backend.apply(PLAN)
    bench.backend.apply(PLAN, adopt=True)
    assert not [line for line in bench.saved() if line == "-A PREROUTING -j SIP"]


def test_bad_set_and_missing_set_change_nothing(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    bad = replace(PLAN.sets[0], elements=("192.0.2.1", "192.0.2.x"))
    with pytest.raises(BackendError, match=r"192\.0\.2\.x"):
        bench.backend.apply(replace(PLAN, sets=(bad, *PLAN.sets[1:])))
    with pytest.raises(BackendError, match="sipfw-nowhere"):
        bench.backend.apply(with_extra(rule("more", in_set("sipfw-nowhere"))))
    assert bench.state() == before


def test_an_obsolete_set_goes_although_its_rule_goes_later(bench: Bench) -> None:
    extra = XSet("sipfw-extra6", "hash:ip", ("family", "inet6"), ("2001:db8::9",), static=True)
    plan = with_extra(rule("more", in_set("sipfw-extra6")))
    bench.backend.apply(replace(plan, sets=(*plan.sets, extra)))
    result = bench.backend.apply(PLAN)
    assert not [note for note in result.notes if "kept" in note]
    assert not [line for line in bench.sets() if "extra6" in line]


def test_no_packet_passes_while_the_rules_are_replaced(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    command = ["ip", "netns", "exec", bench.run.name, sys.executable, "-c", LEAK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        for number in range(6):
            # Without a rehearsal every chain is written anew each time.
            engine = RestoreBackend(Meddler(bench.run, no_scratch=True))
            engine.apply(with_extra(rule(f"more{number}"), family=Family.IP))
        run.stdin.write("stop\n")
        run.stdin.flush()
        sent, received = map(int, run.stdout.readline().split())
    assert sent > 200
    assert received == 0


def test_plain_rules_need_no_ipset_program(bench: Bench) -> None:
    plain = replace(table(Family.IP), chains=(XChain("SIP", (rule("sip.end"),)),))
    plan = XPlan((), (plain,))

    class NoIpset(Meddler):
        def run(self, argv: Sequence[str], **rest: object) -> Completed:  # type: ignore[override]  # passes them on
            if argv[0] == "ipset":
                return SubprocessRunner().run(["no-such-ipset"])
            return super().run(argv, **rest)  # type: ignore[arg-type]  # as above

    RestoreBackend(NoIpset(bench.run)).apply(plan)
    assert len(bench.backend.read().our_chains()) == 1
    RestoreBackend(NoIpset(bench.run)).remove()
    assert bench.saved() == []


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-irt-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_goes_live_verifies_and_goes(host: Host, example: Path) -> None:
    host.must("apply", *BACKEND, "--policy", str(example))
    assert "the live firewall is the applied one" in host.must("verify").stdout
    host.must("verify", *BACKEND, "--policy", str(example))
    assert host.saved() == []
    host.must("remove")
    assert host.run("nft", "list", "tables").stdout == ""
    assert host.sets() == []


TAMPERING = {
    "iptables-nft -t raw -D SIP_SCANNER_BLOCK 1": ("missing", "rule", "SIP_SCANNER_BLOCK"),
    "iptables-nft -t raw -I SIP_TRUSTED 1 -s 198.51.100.0/24 -j ACCEPT": (
        "extra",
        "rule",
        "SIP_TRUSTED",
    ),
    "ip6tables-nft -t raw -F SIP_RATE_LIMIT": ("missing", "rule", "SIP_RATE_LIMIT"),
    "iptables-nft -t raw -F PREROUTING": ("missing", "jump", "PREROUTING"),
    "ipset add sipfw-banned4-x 198.51.100.9": ("extra", "set", "sipfw-banned4-x"),
}


@pytest.mark.parametrize("command", TAMPERING)
def test_tampering_is_named_and_mended(host: Host, command: str) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    if command.startswith("ipset"):
        host.run("ipset", "create", "sipfw-banned4-x", "hash:ip")
    done = host.run(*command.split())
    assert done.returncode == 0, done.stderr
    kind, what, where = TAMPERING[command]
    found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
    assert [d for d in found if (d["kind"], d["what"]) == (kind, what) and where in d["where"]]
    # A set of our name that is on no record is somebody's, until he says otherwise.
    adopt = ["--adopt"] if command.startswith("ipset") else []
    host.must("apply", *BACKEND, *adopt, "--policy", host.policy())
    host.must("verify")
