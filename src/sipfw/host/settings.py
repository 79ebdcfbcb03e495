"""Reads kernel settings and connection tracking figures from /proc. Writes nothing."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class ConntrackUsage:
    """Entries in use and the limit; None where connection tracking is not loaded."""

    count: int | None
    limit: int | None

    @property
    def share(self) -> float | None:
        """Used part of the table, 0 to 1."""
        if self.count is None or not self.limit:
            return None
        return self.count / self.limit


def read_sysctl(name: str) -> int | None:
    """Return a kernel setting by its dotted name, None where the kernel does not have it."""
    try:
        return int((_PROC / name.replace(".", "/")).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def is_fixed(name: str) -> bool:
    """Tell whether this network namespace may only read the setting, as in a container.

    nf_conntrack_max is one for all: other namespaces than the first see it with mode 0444
    (nf_conntrack_standalone.c).
    """
    try:
        mode = (_PROC / name.replace(".", "/")).stat().st_mode
    except OSError:
        return False
    return not mode & stat.S_IWUSR


def read_conntrack() -> ConntrackUsage:
    """Return the use of the connection tracking table of this namespace."""
    return ConntrackUsage(
        read_sysctl("net.netfilter.nf_conntrack_count"),
        read_sysctl("net.netfilter.nf_conntrack_max"),
    )
