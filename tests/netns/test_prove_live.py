"""`sipfw prove` on this kernel: it proves, it notices faults, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from scratch_namespace import scratch_namespace

from broken_rulesets import Fault, programme, trusted, without
from lab import unavailable_reason
from sipfw.prove.play import prove
from sipfw.prove.verdict import FAILED, Verdict
from sipfw.resources import import_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from scratch_namespace import NamespaceRunner

T = TypeVar("T")

pytestmark = pytest.mark.netns

# Sizes of the table of connections are one for all namespaces.
FILES = ("/proc/sys/net/netfilter/nf_conntrack_max", "/proc/sys/net/netfilter/nf_conntrack_buckets")
BACKENDS = ("iptables-legacy", "iptables-nft", "nftables")


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


def _host(node: NamespaceRunner) -> list[str]:
    """Return what a proof could leave in the network namespace from which it is called."""
    return [
        *(
            node.ok(*words)
            for words in (
                ("ip", "-br", "link"),
                ("ip", "-br", "address"),
                ("nft", "list", "ruleset"),
                ("ipset", "save"),
            )
        ),
        *(Path(file).read_text() for file in FILES),
    ]


def _command(*more: str) -> list[str]:
    words = ("prove", "--policy", "none", "--json", *more)
    return [sys.executable, "-m", "sipfw", *words]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_policy_is_proven_and_nothing_stays(backend: str, tmp_path: Path) -> None:
    names = ("carrier-options", "phone", "options-scan")
    chosen = [word for name in names for word in ("--scenario", name)]
    with scratch_namespace("prove", str(tmp_path / "xtables.lock")) as node:
        before = _host(node)
        command = _command("--backend", backend, *chosen)
        done = node.run(command, timeout=90, env={"PYTHONPATH": import_root()})
        assert _host(node) == before
    assert done.returncode == 0, done.stdout + done.stderr
    (proof,) = json.loads(done.stdout)
    assert proof["proven"] is True
    found = {(each["name"], each["version"]): each for each in proof["results"]}
    assert found["options-scan", 6]["tried"] == 200
    assert found["options-scan", 6]["rule"] == "scanner.options-udp"
    assert found["carrier-options", 4]["rule"] == "trusted.accept"
    assert found["phone", 6]["got"] == 6


@pytest.mark.parametrize(
    ("fault", "scenario", "verdict"),
    [
        (Fault("", without("scanner.not-sip")), "not-sip", Verdict.PASSED),
        (Fault("", trusted("192.0.2.99/32")), "carrier-options", Verdict.HURT),
    ],
    ids=["a layer is left out", "the members of a set are lost"],
)
def test_a_fault_is_noticed(fault: Fault, scenario: str, verdict: Verdict) -> None:
    whole = programme(fault, "nftables")
    proof = prove(replace(whole, scenarios=whole.scenarios.only([scenario])), lambda _: None)
    assert {each.verdict for each in proof.results if each.verdict in FAILED} == {verdict}
    assert not proof.proven


def test_all_of_it_ends_with_a_command_that_is_killed() -> None:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(_command(), stdout=quiet, stderr=quiet) as run:
        inside = _wait(lambda: [pid for pid in _below(run.pid) if len(_below(pid)) > 0])
        everybody = [*inside, *(pid for each in inside for pid in _below(each))]
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert everybody
    assert _wait(lambda: not any(_alive(pid) for pid in everybody))


def _below(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(true: Callable[[], T]) -> T:
    deadline = time.monotonic() + 30
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
