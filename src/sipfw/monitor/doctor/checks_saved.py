"""Looks for saved rule files of other programs that hold rules of sipfw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.diagnostics import Severity
from sipfw.monitor.doctor.findings import Diagnosis, DiagnosisState
from sipfw.upkeep.saved_state import INSTALL, judged, unprepared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.monitor.doctor.host import HostView
    from sipfw.upkeep.saved_state import SavedVerdict

NAME = "saved-rules"
_SHOWN = 3


def saved_rules(host: HostView) -> Diagnosis:
    """Tell whether the host's own rules come back at boot from files that hold ours as well."""
    host.require_root()
    verdicts = judged(host.layout)
    lost = [item for item in verdicts if item.diagnostic.severity is Severity.WARNING]
    if lost:
        fixes = dict.fromkeys(item.fix for item in lost if item.fix is not None)
        return Diagnosis(NAME, DiagnosisState.PROBLEM, _sentence(lost), " && ".join(fixes) or None)
    unread = [item for item in verdicts if item.diagnostic.location is None]
    if unread:
        return Diagnosis(NAME, DiagnosisState.UNKNOWN, _sentence(unread))
    broken = [item for item in verdicts if item.fix is not None]
    if broken:
        return Diagnosis(NAME, DiagnosisState.WARNING, _sentence(broken), broken[0].fix)
    if verdicts:
        return Diagnosis(NAME, DiagnosisState.OK, _sentence(verdicts))
    if host.applied is not None and (missing := unprepared(host.layout)):
        return Diagnosis(NAME, DiagnosisState.WARNING, missing[0].message, INSTALL)
    return Diagnosis(
        NAME, DiagnosisState.OK, "no file that another program loads at boot holds sipfw's rules"
    )


def _sentence(verdicts: Sequence[SavedVerdict]) -> str:
    shown = []
    for item in verdicts[:_SHOWN]:
        found = item.diagnostic
        where = "" if found.location is None else f"{found.location} "
        shown.append(f"{where}{found.message}")
    more = len(verdicts) - _SHOWN
    return "; ".join(shown) + (f"; and {more} more, see sipfw saved" if more > 0 else "")
