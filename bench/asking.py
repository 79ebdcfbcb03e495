"""How long a look takes on a busy host: many rules, many bans, many learned sources."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lists import BANS_FROM
from setups import addresses
from stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOURCES = Path(__file__).resolve().parents[1] / "src"
BACKENDS = ("iptables-legacy", "nftables")
LEARNED_FROM = "10.64.0.0"
OTHERS_FROM = "198.18.0.0"

LOOKS = {
    "verify --json": ("verify", "--json"),
    "why, a stranger": ("why", "198.51.100.7"),
    "why, a banned source": ("why", next(addresses(BANS_FROM, 1))),
    "why, a learned source, TCP": ("why", next(addresses(LEARNED_FROM, 1)), "--transport", "tcp"),
    "top --seconds 0": ("top", "--seconds", "0"),
    "metrics": ("metrics",),
}
# Those that walk the rules of others, asked again once there are many of them.
BESIDE = {f"{name}, rules of others": LOOKS[name] for name in ("verify --json", "why, a stranger")}
OTHERS = 2_000
# Each signature is a rule in both families.
_OTHER_RULES = 200


def measure_asking(
    rules: int, members: int, rounds: int, folder: Path, progress: Callable[[str], object]
) -> dict[str, list[float]]:
    """Return, by look, the median seconds on each backend, the start of Python included.

    The looks of BESIDE are taken with OTHERS rules of somebody else besides.
    """
    policy = folder / "asking.yaml"
    policy.write_text(_policy((rules - _OTHER_RULES) // 2, members))
    found: dict[str, list[float]] = {name: [] for name in (*LOOKS, *BESIDE)}
    for backend in BACKENDS:
        progress(f"asking {backend} with {rules} rules, {members} banned and learned each")
        for name, seconds in _on(backend, policy, members, rounds, folder).items():
            found[name].append(seconds)
    return found


def _policy(signatures: int, members: int) -> str:
    texts = "".join(f"      - scanner-number-{number:05d}\n" for number in range(signatures))
    size = max(65536, 2 * members)
    peers = "trusted_peers: [{name: a, signalling: [203.0.113.10, 203.0.113.64/26]}]"
    return f"{peers}\nbans: {{size: {size}}}\nscanners:\n  user_agents:\n    add:\n{texts}"


def _on(backend: str, policy: Path, members: int, rounds: int, folder: Path) -> dict[str, float]:
    root = folder / f"root-{backend}"
    stage = Stage(folder)

    def sipfw(*words: str) -> None:
        argv = [sys.executable, "-m", "sipfw", *words, "--root", str(root)]
        stage.run(argv, env={"PYTHONPATH": str(SOURCES)})

    try:
        sipfw("apply", "--yes", "--backend", backend, "--policy", str(policy))
        for name, first in (("banned", BANS_FROM), ("learned", LEARNED_FROM)):
            _fill(stage, backend, name, list(addresses(first, members)))
        found = _looked(sipfw, LOOKS, rounds)
        _load_others(stage, backend)
        return found | _looked(sipfw, BESIDE, rounds)
    finally:
        stage.close()


def _looked(
    sipfw: Callable[..., None], looks: Mapping[str, tuple[str, ...]], rounds: int
) -> dict[str, float]:
    return {
        name: statistics.median(_timed(lambda words=words: sipfw(*words), rounds))
        for name, words in looks.items()
    }


def _load_others(stage: Stage, backend: str) -> None:
    """Load a list of blocked addresses before ours, one rule for each, as scripts write them."""
    blocked = list(addresses(OTHERS_FROM, OTHERS))
    if backend == "nftables":
        rules = "\n".join(f"ip saddr {item} udp dport 5060 counter drop" for item in blocked)
        hook = "type filter hook input priority -5;"
        text = f"table inet theirs {{\nchain c {{\n{hook}\n{rules}\n}}\n}}\n"
        stage.run(["nft", "-f", "-"], text)
        return
    rules = "\n".join(f"-A MORE -s {item} -p udp --dport 5060 -j DROP" for item in blocked)
    text = f"*filter\n:MORE - [0:0]\n-I INPUT -j MORE\n{rules}\nCOMMIT\n"
    stage.run(["iptables-legacy-restore", "--noflush"], text)


def _fill(stage: Stage, backend: str, name: str, members: list[str]) -> None:
    if backend == "nftables":
        stage.run(
            ["nft", "-f", "-"], f"add element inet sipfw {name}4 {{ {', '.join(members)} }}\n"
        )
        return
    lines = "".join(f"add sipfw-{name}4 {member} timeout 600\n" for member in members)
    stage.run(["ipset", "restore"], lines)


def _timed(step: Callable[[], None], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return found
