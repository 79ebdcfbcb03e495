"""Whether this host has the memory that a ruleset may take, asked before anything changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.ruleset.memory import memory_of, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.ruleset.model import Ruleset

# What a firewall may have of a host that is there for something else.
_SHARE = 4
_TOTAL = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)


def require_memory(ruleset: Ruleset, root: Path = Path("/")) -> None:
    """Raise BackendError for sets that would take more than a quarter of this host's memory.

    A control group's limit counts where it is lower: kernel memory is charged to it (cgroup(7)).
    """
    total = min(_limits(root), default=None)
    wanted = memory_of(ruleset).listed
    if total is not None and wanted * _SHARE > total:
        raise BackendError(
            f"the sets would take {size_text(wanted)} of this host's {size_text(total)} of memory, "
            "and a quarter is the most",
            hint="lower bans.size or feeds[].max_entries; nothing was changed",
        )


def _limits(root: Path) -> Iterator[int]:
    found = _TOTAL.search(_text(root / "proc/meminfo"))
    if found is not None:
        yield 1024 * int(found[1])
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _text(root / "sys/fs/cgroup" / name).strip()
        # The older form writes a number near 2^63 where there is none.
        if text.isdecimal() and int(text) > 0:
            yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
