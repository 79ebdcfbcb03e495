"""Reads the live host and reports it against an expectation. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.backends.iptables_reader import IptablesReader
from sipfw.backends.runner import SubprocessRunner
from sipfw.deploy.apply import chain_names, require_root, static_sets
from sipfw.verify.host import read_conntrack, read_sysctl
from sipfw.verify.report import Report, make_report

if TYPE_CHECKING:
    from sipfw.verify.expectation import Expectation


def inspect(expectation: Expectation) -> Report:
    """Return counters and drift of this network namespace. Needs root to read netfilter."""
    require_root()
    reader = IptablesReader(SubprocessRunner())
    live = reader.live(chain_names(expectation), static_sets(expectation))
    sysctls = {item.name: read_sysctl(item.name) for item in expectation.sysctls}
    return make_report(expectation, live, sysctls, read_conntrack())
