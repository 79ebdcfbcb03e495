"""Reads what is live and says what an apply would change. Changes nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.compare.changes import Plan, Settings
from sipfw.compare.diff import make_plan
from sipfw.compare.expected import Expectation, without_families
from sipfw.deploy.activate import current
from sipfw.deploy.sysctls import own_values
from sipfw.errors import BackendError
from sipfw.host.privilege import require_root
from sipfw.host.settings import read_conntrack, read_sysctl
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend
    from sipfw.ruleset.model import Ruleset

_PROC = Path("/proc/sys")


def plan_apply(ruleset: Ruleset, chosen: Backend, layout: Layout) -> Plan:
    """Compare a ruleset with what is live. Needs root to read netfilter."""
    require_root()
    now = current(layout)
    if now.backend is not None and now.backend != chosen.name:
        # The words of the apply that would be refused.
        raise BackendError(
            f"sipfw is live in {now.backend} already",
            hint=f"apply with --backend {now.backend}, or sipfw remove first",
        )
    wanted = possible(chosen.expectation(ruleset), now.expectation)
    return make_plan(
        wanted,
        chosen.live(wanted),
        _settings((item.name for item in wanted.sysctls), layout),
        before=now.expectation,
        set_origins=_set_origins(ruleset),
    )


def _set_origins(ruleset: Ruleset) -> dict[str, str]:
    by_summary = {item.summary: str(item.origin) for item in ruleset.sets}
    return by_summary | {item.name: str(item.origin) for item in ruleset.sets}


def possible(wanted: Expectation, before: Expectation) -> Expectation:
    """Leave out the families that the last apply left out, since this kernel lacks them."""
    absent = set(Family) - set(before.families()) if before.jumps else set()
    if not absent:
        return wanted
    kept = without_families(wanted, absent)
    if Family.IP6 in absent:
        sets = tuple(item for item in kept.sets if "inet6" not in item.options)
        kept = replace(kept, sets=sets)
    return kept


def _settings(wanted: Iterable[str], layout: Layout) -> Settings:
    names = list(wanted)
    own: dict[str, int] = {}
    with suppress(BackendError):
        # A damaged record keeps no apply from going live, so it must not hide the rest here.
        own = own_values(layout)
    returned = {name: value for name, value in own.items() if name not in names}
    actual = {name: read_sysctl(name) for name in (*names, *returned)}
    loaded = read_conntrack().limit is not None
    fixed = {
        name
        for name, value in actual.items()
        # What is absent may come with connection tracking, which the rules bring in.
        if (loaded if value is None else not _may_set(name))
    }
    return Settings(actual, returned, frozenset(fixed))


def _may_set(name: str) -> bool:
    """Ask the kernel: nf_conntrack_max can be set in the first network namespace only."""
    return os.access(_PROC / name.replace(".", "/"), os.W_OK)
