"""What `apply` and `doctor` say of rules of others that are stricter than the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError
from sipfw.monitor.doctor.findings import CannotTellError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.record import applied_ruleset
from sipfw.monitor.doctor.stricter.losses import judged, losses
from sipfw.monitor.doctor.stricter.openings import commands, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.monitor.doctor.host import HostView
    from sipfw.monitor.doctor.stricter.loss import Loss
    from sipfw.ruleset.model import Ruleset

_FIELD = "other rules"
_MOST_SHOWN = 8


def require_no_loss(host: HostView, ruleset: Ruleset, *, force: bool = False) -> list[Diagnostic]:
    """Name the rules of others that drop what the ruleset admits: sipfw overrules nobody.

    An older sipfw accepted, and such rules behind it saw nothing. Where one of them is in force
    and a rule would now be asked, BackendError; with `force` that is a warning.
    """
    try:
        found = losses(host.rules, ruleset, host.proc, host.runner)
    except CannotTellError as error:
        message = f"whether other rules drop what the policy admits cannot be known: {error}"
        return [Diagnostic(message, _FIELD, severity=Severity.WARNING)]
    new = [item for item in found if item.ours and item.behind]
    said = [_warning(item) for item in found if item not in new]
    more = len(said) - _MOST_SHOWN
    if more > 0:
        message = f"and {more} more rules, see sipfw doctor"
        said[_MOST_SHOWN:] = [Diagnostic(message, _FIELD, severity=Severity.WARNING)]
    if new and not force:
        raise BackendError("\n".join(_refusal(item) for item in new), hint="or apply with --force")
    forced = [
        Diagnostic(f"FORCED: {_refusal(item)}", _FIELD, severity=Severity.WARNING) for item in new
    ]
    return [*forced, *said]


def stricter(host: HostView) -> Diagnosis:
    """Tell whether rules of others drop what the applied policy admits."""
    name = "stricter-rules"
    ruleset = applied_ruleset(host)
    if ruleset is None:
        return Diagnosis(
            name, DiagnosisState.OK, "no policy is applied that others could be stricter than"
        )
    judgement = judged(host.rules, ruleset, host.proc, host.runner)
    found = [*judgement.sure, *judgement.doubtful]
    if not found:
        return Diagnosis(name, DiagnosisState.OK, "no other rule drops what the policy admits")
    state = DiagnosisState.PROBLEM if judgement.cutting else DiagnosisState.WARNING
    sentence = "; ".join(item.text for item in found[:_MOST_SHOWN])
    return Diagnosis(name, state, sentence, " && ".join(in_order(found)) or None)


def cut_off(host: HostView, ruleset: Ruleset) -> CutOff:
    """Return what rules of others take from trusted peers and admins, for who looks at it all."""
    try:
        found = judged(host.rules, ruleset, host.proc, host.runner)
    except (CannotTellError, BackendError) as error:
        text = f"cannot tell whether other rules drop what the policy admits: {error}"
        return CutOff(doubts=(text,))
    rest = [item for item in found.sure if item not in found.cutting]
    return CutOff(
        tuple(f"{item.text}; {_mending(item)}" for item in found.cutting),
        tuple(item.text for item in (*rest, *found.doubtful)),
    )


@dataclass(frozen=True, slots=True)
class CutOff:
    """Sentences: `certain` of what trusted peers and admins lose, `doubts` of all else."""

    certain: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def _mending(loss: Loss) -> str:
    words = _said(commands(loss))
    verb = "open it" if loss.behind else "remove it"
    return f"{verb}: {words}" if words else "see sipfw doctor"


def _warning(loss: Loss) -> Diagnostic:
    opening = _opening(loss)
    message = f"{loss.text}, and sipfw overrules nobody{opening}"
    return Diagnostic(message, _FIELD, severity=Severity.WARNING)


def _refusal(loss: Loss) -> str:
    return (
        f"{_FIELD}: the sipfw in force accepts it, this one leaves it to the rules behind: "
        f"{loss.text}{_opening(loss)}"
    )


def _opening(loss: Loss) -> str:
    words = _said(commands(loss))
    if loss.behind:
        return f"; to open it: {words}"
    itself = "; it stands before sipfw's jump, so it has to be changed itself"
    return f"{itself}: {words}" if words else itself


def _said(words: Sequence[str]) -> str:
    shown = " && ".join(words[:_MOST_SHOWN])
    more = len(words) - _MOST_SHOWN
    return f"{shown} (and {more} more, see sipfw doctor)" if more > 0 else shown
