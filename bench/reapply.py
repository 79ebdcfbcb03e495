"""What it costs to apply an unchanged policy again: this version's command, and another's."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

BACKENDS = ("iptables-legacy", "iptables-nft", "nftables")
POLICY = """\
profile: wholesale
trusted_peers: [{name: carrier, signalling: [203.0.113.10, "2001:db8:5::10"]}]
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds until the command ends, and of CPU without those of the watchdog."""

    elapsed: float
    cpu: float


def measure_reapply(
    checkouts: Mapping[str, Path], rounds: int, folder: Path, progress: Callable[[str], object]
) -> dict[str, dict[str, list[Cost]]]:
    """Return what the command and all its programs cost, by backend and checkout.

    The checkouts take turns, each with a host of its own.
    """
    return {
        backend: _of_backend(backend, checkouts, rounds, folder / backend, progress)
        for backend in BACKENDS
    }


def _of_backend(
    backend: str,
    checkouts: Mapping[str, Path],
    rounds: int,
    folder: Path,
    progress: Callable[[str], object],
) -> dict[str, list[Cost]]:
    stages: dict[str, Stage] = {}
    found: dict[str, list[Cost]] = {name: [] for name in checkouts}
    try:
        for name in checkouts:
            place = folder / name
            place.mkdir(parents=True)
            (place / "policy.yaml").write_text(POLICY)
            stages[name] = Stage(place)
        for number in range(rounds + 1):
            progress(f"{backend}: round {number} of {rounds}")
            for name, checkout in checkouts.items():
                cost = _apply(stages[name], checkout, backend, folder / name)
                # The first one makes it live.
                if number:
                    found[name].append(cost)
    finally:
        for stage in stages.values():
            stage.close()
    return found


def _apply(stage: Stage, checkout: Path, backend: str, place: Path) -> Cost:
    words = ["apply", "--yes", "--backend", backend, "--policy", str(place / "policy.yaml")]
    before = os.times()
    stage.run(
        [sys.executable, "-m", "sipfw", *words, "--root", str(place)],
        env={"PYTHONPATH": str(checkout / "src")},
    )
    after = os.times()
    return Cost(
        after.elapsed - before.elapsed,
        (after.children_user + after.children_system)
        - (before.children_user + before.children_system),
    )
