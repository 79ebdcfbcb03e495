"""A backend more takes one module and one `register`: here is one whose kernel is a variable."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import Expectation, ExpectedChain, ExpectedJump, ExpectedRule
from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule
from sipfw.errors import BackendError
from sipfw.host.runner import Completed, SubprocessRunner
from sipfw.kernel import backend as registry
from sipfw.kernel.backend import AppliedChange, Facts, Modules, Side, backend_of, register
from sipfw.kernel.strangers import Strangers
from sipfw.ruleset.doors import doors_of
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from conftest import Sipfw
    from sipfw.compare.deep import Definitions
    from sipfw.compare.expected import ExpectedSet
    from sipfw.diagnostics import Diagnostic
    from sipfw.kernel.backend import Options
    from sipfw.kernel.detect import Listed, PacketFilters
    from sipfw.kernel.state.limits import LimitState
    from sipfw.kernel.state.members import Members
    from sipfw.kernel.state.sources import SourceSets
    from sipfw.ruleset.model import Ruleset

KERNEL: list[Expectation] = []
FACTS = Facts(9, "a variable", ("dummy",), Side.NF_TABLES, "dummy", "dummy", "none")
NO_SETS = BackendError("this backend keeps no state")


@dataclass(frozen=True)
class Dummy:
    """What is applied is what is live."""

    ipset: bool = True
    name: str = "dummy"
    facts: Facts = FACTS

    def suits(self, host: PacketFilters) -> None:
        del host

    def meant(self, host: PacketFilters) -> None:
        del host

    def lack(self) -> None:
        return None

    def is_live(self, listed: Listed) -> bool:
        del listed
        return bool(KERNEL)

    def modules(self, log_readers: Collection[str]) -> Modules:
        del log_readers
        return Modules(())

    def listing(self, ruleset: Ruleset) -> str:
        return "".join(f"{rule.id}\n" for chain in ruleset.chains for rule in chain.rules)

    def expectation(self, ruleset: Ruleset) -> Expectation:
        chains = tuple(
            ExpectedChain(
                Family.IP,
                "dummy",
                chain.name,
                chain.layer.value,
                tuple(ExpectedRule(r.id, "00000000", r.summary, "policy") for r in chain.rules),
            )
            for chain in ruleset.chains
        )
        entry = ExpectedRule("dummy.entry", "00000000", "every packet", "policy")
        jump = ExpectedJump(Family.IP, "dummy", "input", entry)
        return Expectation(chains, (jump,), (), (), doors=doors_of(ruleset))

    def check(self, ruleset: Ruleset, options: Options) -> tuple[Diagnostic, ...]:
        del ruleset, options
        return ()

    def apply(self, ruleset: Ruleset, options: Options) -> AppliedChange:
        del options
        KERNEL[:] = [self.expectation(ruleset)]
        return AppliedChange(KERNEL[0], ())

    def live(self, expectation: Expectation) -> Live:
        del expectation
        chains = [chain for held in KERNEL for chain in held.chains]
        jumps = [jump for held in KERNEL for jump in held.jumps]
        return Live(
            tuple(LiveChain(c.family, c.table, c.name, tuple(map(_live, c.rules))) for c in chains),
            tuple(LiveJump(j.family, j.table, j.hook, _live(j.rule), ()) for j in jumps),
            (),
        )

    def read_fully(self, expectation: Expectation) -> tuple[Live, Definitions]:
        return self.live(expectation), {}

    def is_whole(self, expectation: Expectation) -> bool:
        return [expectation] == KERNEL

    def marks(self, family: Family) -> Counter[str]:
        held = (chain for each in KERNEL for chain in each.chains if chain.family is family)
        return Counter(f"{rule.id}#{rule.digest}" for chain in held for rule in chain.rules)

    def limits(self, proc_net: Path = registry.PROC_NET) -> LimitState:
        del proc_net
        raise NO_SETS

    def sources(self, proc_net: Path = registry.PROC_NET) -> SourceSets:
        del proc_net
        raise NO_SETS

    def strangers(self, known: Collection[tuple[str, str]]) -> Strangers:
        del known
        return Strangers()

    def fill(self, sets: Sequence[ExpectedSet]) -> None:
        del sets
        raise NO_SETS

    def members(self) -> Members:
        raise NO_SETS

    def take_out(self, jumps: Iterable[LiveJump]) -> None:
        del jumps

    def drop_left_sets(self) -> list[str]:
        return []

    def remove(self, options: Options) -> tuple[str, ...]:
        del options
        KERNEL.clear()
        return ()


def _live(rule: ExpectedRule) -> LiveRule:
    return LiveRule(rule.id, rule.digest, 0, 0, rule.id)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the root of a host without programs, rules and settings, for who is root there."""
    monkeypatch.setattr(registry, "_makers", {**_shipped()})
    register("dummy", lambda ipset, _runner: Dummy(ipset))
    monkeypatch.setattr(SubprocessRunner, "run", lambda *_, **__: Completed(0, "", ""))
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    # The watchdog is a process of its own, and another process has another variable.
    monkeypatch.setattr("sipfw.deploy.transaction.arm", lambda *_: None)
    monkeypatch.setattr("sipfw.deploy.activate.apply_sysctls", lambda *_: [])
    yield tmp_path
    KERNEL.clear()


def _shipped() -> dict[str, registry.Maker]:
    registry.backend_names()
    return registry._makers


def test_it_is_applied_verified_listed_and_removed(host: Path, sipfw: Sipfw) -> None:
    root = ("--root", str(host))
    applied = sipfw("apply", *root, "--profile", "default", "--backend", "dummy", "--yes")
    assert applied.code == 0, applied.stderr
    assert KERNEL
    (listing,) = (host / "var/lib/sipfw/generations/1").glob("rules*")
    assert "dummy" not in listing.read_text()
    verified = sipfw("verify", *root, "--json")
    assert verified.code == 0, verified.stdout
    assert json.loads(verified.stdout)["backend"] == "dummy"
    (entry,) = json.loads(sipfw("history", *root, "--json").stdout)
    assert (entry["backend"], entry["live"]) == ("dummy", True)
    removed = sipfw("remove", *root)
    assert (removed.code, KERNEL) == (0, [])


def test_what_is_lost_is_seen_and_restored(host: Path, sipfw: Sipfw) -> None:
    root = ("--root", str(host))
    sipfw("apply", *root, "--profile", "default", "--backend", "dummy", "--yes")
    KERNEL.clear()
    assert sipfw("verify", *root, "--brief").code == 1
    restored = sipfw("restore", *root)
    assert restored.code == 0, restored.stderr
    assert sipfw("verify", *root, "--brief").code == 0
    KERNEL.clear()
    kept = sipfw("keep", *root)
    assert (kept.code, kept.stdout) == (0, ""), kept.stderr
    assert sipfw("verify", *root, "--brief").code == 0


def test_the_record_of_a_backend_that_is_gone_is_refused(
    host: Path, sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ("--root", str(host))
    sipfw("apply", *root, "--profile", "default", "--backend", "dummy", "--yes")
    monkeypatch.delitem(registry._makers, "dummy")
    refused = sipfw("verify", *root)
    assert refused.code == 4
    assert "no backend 'dummy'" in refused.stderr


def test_auto_never_takes_it_and_help_names_it(host: Path, sipfw: Sipfw) -> None:
    assert "nftables|dummy]" in sipfw("apply", "--help").stdout.replace("\n", "")
    assert backend_of("dummy").name == "dummy"
    refused = sipfw("apply", "--root", str(host), "--profile", "default", "--dry-run")
    assert refused.code == 4
    assert "install nftables" in refused.stderr
