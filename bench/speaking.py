"""What noting costs to whom the switch sends RTP: CPU time of the sender per packet.

    python bench/speaking.py [rounds]

Each round sends with every form of the rules, so that a slow minute of the machine is everybody's.
Beside the rules as they are, "each packet written" is what they would cost without looking first.
Needs root, iptables-legacy, ipset and nft; everything happens in a namespace of its own.
"""

from __future__ import annotations

import socket
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from stage import Stage

from packets import SWITCH
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower as lower_iptables
from sipfw.lower.nftables import lower as lower_nftables
from sipfw.policy.load import Request, load
from sipfw.render.nft import nft_text
from sipfw.render.restore import ipset_text, restore_text
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sipfw.ruleset.model import Ruleset

_PORT = 12002
_PACKET = b"\x80\x00" + bytes(170)
_LISTENERS = 1000
_PACKETS = 40_000


def _rules(folder: Path, sources: str) -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(f"media: {{sources: {sources}, ports: [10000-20000]}}\n")
    return compile_policy(load(Request(file)))


def _written(ruleset: Ruleset) -> Ruleset:
    """Write for every packet."""
    chains = [
        replace(chain, rules=tuple(r for r in chain.rules if not r.id.endswith(".media-known")))
        for chain in ruleset.chains
    ]
    return replace(ruleset, chains=tuple(chains))


def _iptables(stage: Stage, ruleset: Ruleset) -> None:
    plan = lower_iptables(ruleset)
    stage.run(["ipset", "restore", "-exist"], ipset_text(plan))
    stage.run(["iptables-legacy-restore", "--noflush"], restore_text(plan, Family.IP))


def _nftables(stage: Stage, ruleset: Ruleset) -> None:
    stage.run(["nft", "-f", "-"], nft_text(lower_nftables(ruleset)))


def _clear(stage: Stage) -> None:
    stage.run(["nft", "flush", "ruleset"])
    empty = "".join(f"*{table}\n-F\n-X\nCOMMIT\n" for table in ("raw", "mangle", "filter"))
    stage.run(["iptables-legacy-restore"], empty)
    stage.run(["ipset", "destroy"])


def _cost(stage: Stage) -> float:
    """Return nanoseconds of CPU time per packet, those of the network stack included."""
    listeners = [(f"198.18.{n >> 8}.{n & 255}", 20000) for n in range(_LISTENERS)]
    with stage.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.bind((SWITCH, _PORT))
        send = speaker.sendto
        for each in listeners:
            send(_PACKET, each)
        started = time.thread_time_ns()
        for _ in range(_PACKETS // _LISTENERS):
            for each in listeners:
                send(_PACKET, each)
        return (time.thread_time_ns() - started) / _PACKETS


def main(rounds: int) -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage = Stage(folder)
        forms = {"anywhere": _rules(folder, "anywhere"), "expected": _rules(folder, "expected")}
        forms["each packet written"] = _written(forms["expected"])
        loaders: Mapping[str, Callable[[Stage, Ruleset], None]] = {
            "iptables-legacy": _iptables,
            "nftables": _nftables,
        }
        costs: dict[str, list[float]] = {"no rules": []}
        try:
            for _ in range(rounds):
                costs["no rules"].append(_cost(stage))
                for backend, put in loaders.items():
                    for form, ruleset in forms.items():
                        put(stage, ruleset)
                        costs.setdefault(f"{backend}, {form}", []).append(_cost(stage))
                        _clear(stage)
        finally:
            stage.close()
    base = statistics.median(costs["no rules"])
    for title, values in costs.items():
        best, usual = min(values), statistics.median(values)
        print(f"{title:40} {usual:6.0f} ns  {usual - base:+6.0f}   best {best:6.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
