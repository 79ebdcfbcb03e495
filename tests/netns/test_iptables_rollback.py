"""Whatever fails in the live iptables backend, tables, counters and sets are as they were."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from iptables_bench import (
    FOREIGN,
    GUIDE_SCRIPT,
    PLAN,
    RECENT_TOO_HIGH,
    Bench,
    in_set,
    rule,
    table,
    with_extra,
)
from scratch_namespace import NamespaceRunner, Trouble, scratch_namespace

from sipfw.errors import ApplyError, BackendError
from sipfw.host.runner import Completed
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.kernel.xtables.legacy import IptablesBackend
from sipfw.kernel.xtables.libiptc.protocol import (
    WorkerReply,
    decode_request,
    encode_reply,
    encode_request,
)
from sipfw.lower.xtables import Family, XPlan, XSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Work = Callable[[str], Completed]

pytestmark = pytest.mark.netns


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    lock = str(tmp_path / "xtables.lock")
    monkeypatch.setenv("XTABLES_LOCKFILE", lock)
    with scratch_namespace("backend", lock) as runner:
        yield Bench(runner, IptablesBackend(runner))


def test_missing_set_is_refused_before_anything_changes(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    with pytest.raises(BackendError, match="sipfw-nowhere"):
        bench.backend.apply(with_extra(rule("bad", in_set("sipfw-nowhere"))))
    assert bench.state() == before


def test_set_that_vanishes_before_the_worker_is_refused_and_restored(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    bench.run.ok("ipset", "create", "theirs", "hash:ip")
    before = bench.state()

    def destroy(run: NamespaceRunner, work: Work, request: str) -> Completed:
        run.ok("ipset", "destroy", "theirs")
        return work(request)

    with pytest.raises(BackendError, match=r"change rules: .*'sipfw:bad.*set: --match-set") as info:
        bench.backend_with(destroy).apply(
            with_extra(rule("bad", in_set("theirs"), proto=None), family=Family.IP)
        )
    assert info.value.restored
    bench.run.ok("ipset", "create", "theirs", "hash:ip")
    assert bench.state() == before


def test_rule_that_the_kernel_refuses_restores_tables_and_sets(bench: Bench) -> None:
    bench.load(FOREIGN)
    bench.backend.apply(PLAN)
    bench.run.ok("ipset", "add", "sipfw-banned4", "198.51.100.66", "timeout", "0")
    before = bench.state()
    # The refusal comes from the second table: the first one is live by then.
    bad = with_extra(rule("bad", RECENT_TOO_HIGH))
    plan = replace(bad, tables=(table(Family.IP, extra=[rule("more")]), bad.tables[1]))
    with pytest.raises(ApplyError, match=r"commit table ip6 raw: .*Invalid argument") as info:
        bench.backend.apply(plan)
    assert info.value.restored
    assert bench.state() == before


def test_first_apply_that_fails_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(BackendError):
        bench.backend.apply(with_extra(rule("bad", RECENT_TOO_HIGH)))
    assert bench.set_lines() == []
    assert not any("-A" in line or "SIP" in line for line in bench.saved())


def test_worker_killed_before_or_between_commits_restores(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()

    def kill_after(tables: int) -> Trouble:
        """Let the worker commit so many tables, then be dead of SIGKILL."""

        def trouble(run: NamespaceRunner, work: Work, request: str) -> Completed:
            whole = decode_request(request)
            work(encode_request(replace(whole, tables=whole.tables[:tables])))
            return run.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

        return trouble

    for tables in (0, 1):
        with pytest.raises(BackendError, match=r"worker process died \(signal 9\)") as info:
            bench.backend_with(kill_after(tables)).apply(with_extra(rule("more"), family=Family.IP))
        assert info.value.restored
        assert bench.state() == before


def delete_a_rule(run: NamespaceRunner, work: Work, request: str) -> Completed:
    """Do after the worker what a program does that does not care about the lock."""
    done = work(request)
    other = replace(run, lock_file=f"{run.lock_file}.other")
    other.ok("iptables-legacy", "-t", "raw", "-D", "SIP", "1")
    return done


def test_read_back_difference_restores(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()

    with pytest.raises(ApplyError, match="read back: ip raw: chain SIP does not hold") as info:
        bench.backend_with(delete_a_rule).apply(PLAN)
    assert info.value.restored
    assert bench.state() == before


def test_a_first_apply_that_is_wrong_leaves_nothing_after_one_look(bench: Bench) -> None:
    """Its tables are made by asking for them, which no listing from before shows."""

    runner = HostSnapshot(replace(bench.run, trouble=delete_a_rule))
    with pytest.raises(ApplyError, match="read back: ip raw: chain SIP does not hold") as info:
        IptablesBackend(runner).apply(PLAN)
    assert info.value.restored
    assert not any("-A" in line or "SIP" in line for line in bench.saved())


def test_change_behind_the_lock_is_retried(bench: Bench) -> None:
    calls = []

    def race(_run: NamespaceRunner, work: Work, request: str) -> Completed:
        """Answer the first call as the worker does when its commit finds EAGAIN."""
        calls.append(request)
        if len(calls) == 1:
            return Completed(1, encode_reply(WorkerReply(error="busy", retry=True)), "")
        return work(request)

    assert bench.backend_with(race).apply(PLAN).tables == ("ip raw", "ip6 raw")
    assert len(calls) == 2


def test_guide_script_returns_when_adoption_fails(bench: Bench) -> None:
    bench.load(GUIDE_SCRIPT)
    # The plan has a filter table of its own, so that the guide's chains are rewritten first.
    bad = with_extra(rule("bad", RECENT_TOO_HIGH))
    plan = XPlan(bad.sets, (table(Family.IP, name="filter"), *bad.tables))
    before = [line for line in bench.saved() if "raw" not in line]
    with pytest.raises(ApplyError) as info:
        bench.backend.apply(plan, adopt=True)
    assert info.value.restored
    assert "\n".join(before) in "\n".join(bench.saved())


def test_held_lock_ends_in_a_clear_error(bench: Bench, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "xtables.lock", os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(BackendError, match=f"pid {os.getpid()}"):
            bench.backend.apply(PLAN, lock_seconds=0.3)
        assert 0.3 <= time.monotonic() - start < 2
    finally:
        os.close(descriptor)
    bench.backend.apply(PLAN, lock_seconds=0.3)


def test_set_of_another_type_is_refused_before_anything_changes(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    other = XSet("sipfw-banned4", "hash:net", ("family", "inet"), (), static=False)
    with pytest.raises(BackendError, match="exists as hash:ip inet, wanted is hash:net inet"):
        bench.backend.apply(replace(PLAN, sets=(*PLAN.sets[:2], other)))
    assert bench.state() == before


def test_bad_element_names_the_line_and_changes_nothing(bench: Bench) -> None:
    bench.backend.apply(PLAN)
    before = bench.state()
    bad = replace(PLAN.sets[0], elements=("192.0.2.1", "192.0.2.x"))
    with pytest.raises(BackendError, match=r"192\.0\.2\.x"):
        bench.backend.apply(replace(PLAN, sets=(bad, *PLAN.sets[1:])))
    assert bench.state() == before


def test_signals_wait_until_the_ruleset_is_whole(bench: Bench) -> None:
    seen: list[int] = []

    def interrupt(_run: NamespaceRunner, work: Work, request: str) -> Completed:
        signal.raise_signal(signal.SIGHUP)
        return work(request)

    previous = signal.signal(
        signal.SIGHUP, lambda *_: seen.append(len(bench.backend.read().our_jumps()))
    )
    try:
        bench.backend_with(interrupt).apply(PLAN)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert seen == [2]
