"""Does a packet cost more when the sets are long? One stage per length, measured side by side."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from lists import BANS_FROM, peer_policy
from measure import Cell, Theatre, measure
from setups import Setup, addresses, ban, load_iptables, load_nftables

from packets import PacketClass, packet_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stage import Stage

# These ask all sets, or hit an entry of one of them.
_ROWS = ("trusted OPTIONS", "RTP", "REGISTER, 65k sources", "banned source")


def measure_growth(
    sizes: Sequence[int],
    rounds: int,
    packets: int,
    folder: Path,
    progress: Callable[[str], object],
) -> dict[str, list[Cell]]:
    """Return, by packet class, one cell for each backend and length."""
    columns = [
        Setup(f"{name}, {size:,}", partial(load, size=size))
        for name, load in _BACKENDS.items()
        for size in sizes
    ]
    rows: list[PacketClass] = [row for row in packet_classes() if row.name in _ROWS]
    with closing(Theatre(columns, folder)) as theatre:
        cells = measure(theatre.stages, rows, rounds=rounds, packets=packets, progress=progress)
    return {row.name: [cells[row.name, setup.name] for setup in columns] for row in rows}


def headings(sizes: Sequence[int]) -> list[str]:
    """Name the columns."""
    return [f"{name}, {size:,}" for name in _BACKENDS for size in sizes]


def _iptables(stage: Stage, size: int) -> None:
    load_iptables(stage, peer_policy(size))
    ban(stage, addresses(BANS_FROM, size))


def _nftables(stage: Stage, size: int) -> None:
    load_nftables(stage, peer_policy(size))
    bans = ", ".join(addresses(BANS_FROM, size))
    stage.run(["nft", "-f", "-"], f"add element inet sipfw banned4 {{ {bans} }}\n")


_BACKENDS: dict[str, Callable[[Stage, int], None]] = {"iptables": _iptables, "nftables": _nftables}
