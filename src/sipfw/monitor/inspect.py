"""Reads the live host and reports it against an expectation. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.host.privilege import require_root
from sipfw.host.settings import is_fixed, read_conntrack, read_sysctl
from sipfw.monitor.report import Report, make_report

if TYPE_CHECKING:
    from sipfw.compare.expected import Expectation
    from sipfw.compare.live import Live
    from sipfw.kernel.backend import Backend


def inspect(expectation: Expectation, chosen: Backend) -> Report:
    """Return counters and drift of this network namespace. Needs root to read netfilter."""
    return look(expectation, chosen)[0]


def look(expectation: Expectation, chosen: Backend) -> tuple[Report, Live]:
    """Return the same with the listing that it was made of."""
    require_root()
    live = chosen.live(expectation)
    sysctls = {item.name: read_sysctl(item.name) for item in expectation.sysctls}
    fixed = frozenset(name for name in sysctls if is_fixed(name))
    return make_report(expectation, live, sysctls, read_conntrack(), fixed), live
