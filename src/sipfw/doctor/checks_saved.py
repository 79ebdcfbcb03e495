"""Looks for saved rule files of other programs that hold rules of sipfw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.saved_state import INSTALL, judged, unprepared
from sipfw.diagnostics import Severity
from sipfw.doctor.findings import Finding, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.deploy.saved_state import Verdict
    from sipfw.doctor.host import Host

NAME = "saved-rules"
_SHOWN = 3


def saved_rules(host: Host) -> Finding:
    """Tell whether the host's own rules come back at boot from files that hold ours as well."""
    host.require_root()
    verdicts = judged(host.layout)
    lost = [item for item in verdicts if item.diagnostic.severity is Severity.WARNING]
    if lost:
        fixes = dict.fromkeys(item.fix for item in lost if item.fix is not None)
        return Finding(NAME, State.PROBLEM, _sentence(lost), " && ".join(fixes) or None)
    unread = [item for item in verdicts if item.diagnostic.location is None]
    if unread:
        return Finding(NAME, State.UNKNOWN, _sentence(unread))
    broken = [item for item in verdicts if item.fix is not None]
    if broken:
        return Finding(NAME, State.WARNING, _sentence(broken), broken[0].fix)
    if verdicts:
        return Finding(NAME, State.OK, _sentence(verdicts))
    if host.applied is not None and (missing := unprepared(host.layout)):
        return Finding(NAME, State.WARNING, missing[0].message, INSTALL)
    return Finding(NAME, State.OK, "no file that another program loads at boot holds sipfw's rules")


def _sentence(verdicts: Sequence[Verdict]) -> str:
    shown = []
    for item in verdicts[:_SHOWN]:
        found = item.diagnostic
        where = "" if found.location is None else f"{found.location} "
        shown.append(f"{where}{found.message}")
    more = len(verdicts) - _SHOWN
    return "; ".join(shown) + (f"; and {more} more, see sipfw saved" if more > 0 else "")
