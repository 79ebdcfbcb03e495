"""What a ruleset takes of the kernel's memory, and a host that has too little of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.memory import require_memory
from sipfw.errors import BackendError
from sipfw.policy.load import Request, load
from sipfw.ruleset.memory import memory_of, memory_text, size_text

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset


def ruleset(*settings: str) -> Ruleset:
    return compile_policy(load(Request(settings=settings)))


def host(root: Path, megabytes: int, **groups: str) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/meminfo").write_text(f"MemTotal:       {megabytes * 1024} kB\nMemFree: 1 kB\n")
    for name, text in groups.items():
        file = root / "sys/fs/cgroup" / name.replace("_max", ".max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_more_room_for_bans_takes_more(tmp_path: Path) -> None:
    small, large = (memory_of(ruleset(f"bans.size={size}")) for size in (1000, 1_000_000))
    assert small.at_once < small.listed < small.full
    # Two sets of both families.
    assert large.at_once - small.at_once == 4 * 8 * 999_000
    assert large.listed > small.listed + 400_000_000
    assert "MB of kernel memory, " in memory_text(small)
    require_memory(ruleset("bans.size=1000000"), host(tmp_path, 8192))


def test_a_shipped_policy_fits_a_small_host(tmp_path: Path) -> None:
    require_memory(ruleset(), host(tmp_path, 512))


@pytest.mark.parametrize("setting", ["bans.size=1000000", "learning.pending=49d"])
def test_what_takes_a_quarter_of_the_host_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"the sets would take .* of this host's 1.1 GB"):
        require_memory(ruleset(setting), host(tmp_path, 1024))


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    wanted = ruleset("bans.size=1000000")
    require_memory(wanted, host(tmp_path, 65536, memory_max="max\n"))
    with pytest.raises(BackendError, match="and a quarter is the most"):
        require_memory(wanted, host(tmp_path, 65536, memory_max="1073741824\n"))


def test_a_host_that_tells_nothing_is_believed(tmp_path: Path) -> None:
    require_memory(ruleset("bans.size=1000000"), tmp_path)


def test_sizes_are_rounded_up() -> None:
    assert [size_text(size) for size in (1, 1_000_001, 2_500_000_000)] == ["1 MB", "2 MB", "2.5 GB"]
