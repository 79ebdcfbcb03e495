"""How long sipfw takes to load long lists, load them again and verify them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lists import BANS_FROM, peer_policy
from setups import addresses, ban, compiled
from stage import Stage

from sipfw.kernel.xtables.legacy import IptablesBackend
from sipfw.lower.iptables import lower

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = ("read and compile", "load peers", "add bans", "load again", "sipfw apply", "sipfw verify")
SOURCES = Path(__file__).resolve().parents[1] / "src"


def measure_loading(size: int, folder: Path) -> list[float]:
    """Return the seconds of each step with `size` trusted and `size` banned addresses."""
    policy = folder / f"policy-{size}.yaml"
    policy.write_text(peer_policy(size))
    root = folder / f"root-{size}"
    root.mkdir()
    stage = Stage(folder)
    try:
        return _steps(stage, policy, root, size)
    finally:
        stage.close()


def _steps(stage: Stage, policy: Path, root: Path, size: int) -> list[float]:
    text = policy.read_text()
    plan = lower(compiled(text))
    backend = IptablesBackend()

    def apply() -> None:
        with stage.inside():
            backend.apply(plan)

    def command(*words: str) -> None:
        stage.run(
            [sys.executable, "-m", "sipfw", *words, "--root", str(root)],
            env={"PYTHONPATH": str(SOURCES)},
        )

    steps: tuple[Callable[[], object], ...] = (
        lambda: lower(compiled(text)),
        apply,
        lambda: ban(stage, addresses(BANS_FROM, size)),
        apply,
        lambda: command("apply", "--yes", "--policy", str(policy)),
        lambda: command("verify", "--json"),
    )
    return [_timed(step) for step in steps]


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
