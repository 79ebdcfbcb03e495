"""Windows as ipsets with counters: how often a source was let through, and when that ends.

They stand for `limits.recent` on iptables, see `lower.ipset.windows`; all other limits there are
those of `limits.XtLimits`.
"""

from __future__ import annotations

from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.state.limits import (
    MOST,
    LimitTable,
    SourceBucket,
    Standing,
    XtLimits,
    prefix,
)
from sipfw.kernel.xtables.ipset_text import elements_of
from sipfw.lower.naming import set_name
from sipfw.ruleset.match import RateAbove, SeenAtLeast
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.host.runner import Runner
    from sipfw.kernel.state.limits import SourceLimit
    from sipfw.ruleset.addresses import IpAddress

_PROC_NET = Path("/proc/net")


class IpsetLimits:
    """xt_hashlimit, and windows as ipsets with counters (`lower.ipset.windows`)."""

    def __init__(self, runner: Runner, proc_net: Path = _PROC_NET) -> None:
        self._runner = runner
        self._others = XtLimits(proc_net)

    def read(self, limits: Iterable[SourceLimit]) -> list[LimitTable]:
        """Return a table for each limit and family that the kernel has."""
        found = []
        for limit in limits:
            if isinstance(limit, SeenAtLeast):
                tables = (self._window(limit, family) for family in Family)
                found += [table for table in tables if table is not None]
            else:
                found += self._others.read([limit])
        return found

    def ask(
        self, limit: SourceLimit, source: IpAddress, port: int | None = None
    ) -> LimitTable | None:
        """Return the limit with this source's buckets only."""
        if isinstance(limit, RateAbove):
            return self._others.ask(limit, source, port)
        table = self._window(limit, Family.IP if source.version == 4 else Family.IP6)
        if table is None:
            return None
        mine = tuple(bucket for bucket in table.buckets if source in bucket.network)
        return LimitTable(limit, table.family, mine)

    def _window(self, limit: SeenAtLeast, family: Family) -> LimitTable | None:
        name = set_name(limit.list, family)
        done = self._runner.run(["ipset", "save", name])
        if done.returncode != 0:
            if "does not exist" in done.stderr:
                return None
            raise BackendError(f"ipset: cannot read {name}: {done.stderr.strip()}")
        try:
            lines = list(islice(elements_of(done.stdout), MOST + 1))
            buckets = tuple(_window_bucket(line, limit, family) for line in lines[:MOST])
        except (ValueError, KeyError) as error:
            raise BackendError(f"ipset: cannot read its listing of {name}") from error
        return LimitTable(limit, family, buckets, cut=len(lines) > MOST)


def _window_bucket(line: str, limit: SeenAtLeast, family: Family) -> SourceBucket:
    """Read `192.0.2.2 timeout 55 packets 3 bytes 1200`.

    The first packet makes the entry with a count of one, and each look adds one before it compares.
    """
    address, *words = line.split()
    options = dict(zip(words[::2], words[1::2], strict=False))
    left = max(0, limit.hits - int(options["packets"]))
    return SourceBucket(
        ip_address(address),
        prefix(limit, family),
        None,
        Standing.WITHIN if left else Standing.EXCEEDED,
        left,
        int(options["timeout"]),
    )
