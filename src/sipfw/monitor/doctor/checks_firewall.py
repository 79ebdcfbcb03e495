"""sipfw's own part: where its rules are, whether they are live, what waits, who may read it."""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

from sipfw.compare.drift import drift
from sipfw.deploy import journal as journals
from sipfw.deploy.repair import Unfinished, waiting_text, what, why
from sipfw.kernel.backend import Side, backend_of, backends
from sipfw.monitor.doctor.findings import CannotTellError, DamagedError, Diagnosis, DiagnosisState
from sipfw.monitor.doctor.host import cannot_read
from sipfw.monitor.doctor.overtaken import is_overtaken, removals
from sipfw.words import format_duration, pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.monitor.doctor.host import HostView

_SHOWN = 3
# Below this nobody counts seconds.
_NOW = 60


def backend(host: HostView) -> Diagnosis:
    """Tell whether the host's rules are split over legacy tables and nf_tables."""
    name = "backend"
    found = host.packet_filter
    if len(found.ours) > 1:
        sentence = f"rules of sipfw are live in {' and '.join(sorted(found.ours))} at once"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, "sipfw remove && sipfw apply")
    newer = (*found.iptables_nft, *found.nft)
    ours = next(iter(found.ours), None)
    if found.legacy and newer:
        sentence = (
            "rules are split, and a packet must pass both sides: legacy iptables has "
            f"{_some(found.legacy)}; nf_tables has {_some(newer)}; move them to one side"
        )
        fix = "iptables-legacy-save; ip6tables-legacy-save; nft -t list ruleset"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, fix)
    if ours is not None:
        mine = backend_of(ours).facts.side
        other, side = found.beside(mine), "nf_tables" if mine is Side.LEGACY else "legacy"
        if other:
            sentence = f"sipfw is in {ours}, and {side} has rules too: {_some(other)}"
            return Diagnosis(name, DiagnosisState.WARNING, sentence, "sipfw remove && sipfw apply")
        return Diagnosis(name, DiagnosisState.OK, f"all rules are where sipfw's are: {ours}")
    if found.programs.isdisjoint(item.facts.program for item in backends()):
        sentence = "this host has neither iptables nor nft"
        return Diagnosis(
            name, DiagnosisState.PROBLEM, sentence, "apt install nftables || dnf install nftables"
        )
    used = "legacy iptables" if found.legacy else "nf_tables" if newer else None
    return Diagnosis(
        name, DiagnosisState.OK, f"all rules are in {used}" if used else "no rules yet"
    )


def _some(places: Sequence[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def last_apply(host: HostView) -> Diagnosis:
    """Tell when sipfw was applied last."""
    name = "last-apply"
    try:
        applied = host.applied
    except DamagedError as error:
        return Diagnosis(
            name, DiagnosisState.PROBLEM, f"the record is damaged: {error}", "sipfw apply"
        )
    if applied is None:
        try:
            ours = sorted(host.packet_filter.ours)
        except CannotTellError:
            ours = []
        if ours:
            sentence = f"no apply is on record; rules of sipfw are live in {ours[0]}"
            return Diagnosis(name, DiagnosisState.OK, sentence)
        return Diagnosis(name, DiagnosisState.WARNING, "sipfw was not applied yet", "sipfw apply")
    seconds = host.now - host.layout.applied.stat().st_mtime
    number = "" if applied.generation is None else f"generation {applied.generation}, "
    if seconds < -60:
        sentence = f"{number}{applied.backend}, applied in the future: the clock was set back"
        return Diagnosis(name, DiagnosisState.WARNING, sentence, "timedatectl set-ntp true")
    return Diagnosis(name, DiagnosisState.OK, f"{number}{applied.backend}, {_age(seconds)}")


def _age(seconds: float) -> str:
    return f"{format_duration(seconds)} ago" if seconds >= _NOW else "just now"


def live(host: HostView) -> Diagnosis:
    """Tell whether the applied firewall is the one in the kernel."""
    name = "live"
    applied = host.applied
    if applied is None:
        return Diagnosis(name, DiagnosisState.OK, "nothing is on record that should be live")
    again = "sipfw apply" if applied.generation is None else "sipfw restore"
    if not host.runs_our_rules:
        sentence = f"the applied firewall is not in the kernel ({applied.backend}): SIP is open"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, again)
    different = drift(applied.expectation, host.live)
    if different:
        places = pluralize(len(different), "place")
        sentence = f"the live firewall differs in {places}, first: {different[0]}"
        words = removals(host, different)
        if not words or not all(map(is_overtaken, different)):
            words.append(again)
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, " && ".join(words))
    return Diagnosis(name, DiagnosisState.OK, "the live firewall is the applied one")


def pending(host: HostView) -> Diagnosis:
    """Tell whether a change waits for its confirmation, or was left half done."""
    name = "pending"
    layout = host.layout
    # In this order, because a change goes from the first to the second and never back.
    for path, undoing in ((layout.pending, False), (layout.undo, True)):
        try:
            path.lstat()
            journal = journals.read(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_read(path, error) from error
        except ValueError as error:
            if isinstance(error.__cause__, PermissionError):
                raise cannot_read(path, error.__cause__) from error
            sentence = f"a change was left without an end: {error}"
            return Diagnosis(name, DiagnosisState.PROBLEM, sentence, "sipfw rollback")
        if journal is not None:
            return _unfinished(host, Unfinished(journal, undoing))
    return Diagnosis(name, DiagnosisState.OK, "no change waits to be confirmed")


def _unfinished(host: HostView, change: Unfinished) -> Diagnosis:
    journal = change.journal
    if change.open and journal.seconds_left() > 0:
        sentence = f"{waiting_text(journal)}, then it is taken back"
        return Diagnosis("pending", DiagnosisState.WARNING, sentence, "sipfw confirm")
    if journal.boot == journals.boot_id() and (host.proc / str(journal.group)).is_dir():
        sentence = f"{what(journal)} is being changed now; look again in a minute"
        return Diagnosis("pending", DiagnosisState.WARNING, sentence, "sipfw history")
    sentence = f"{what(journal)} was left without an end: {why(change)}"
    return Diagnosis("pending", DiagnosisState.PROBLEM, sentence, "sipfw rollback")


def state_folder(host: HostView) -> Diagnosis:
    """Tell whether anybody but root may look into the state folder: it names every peer."""
    name, folder = "state-folder", host.layout.state
    try:
        found = folder.stat()
    except FileNotFoundError:
        return Diagnosis(name, DiagnosisState.OK, f"{folder} is not there yet")
    except OSError as error:
        raise cannot_read(folder, error) from error
    quoted = shlex.quote(str(folder))
    fix = f"chown root:root {quoted} && chmod 700 {quoted}"
    if not stat.S_ISDIR(found.st_mode):
        return Diagnosis(
            name, DiagnosisState.PROBLEM, f"{folder} is not a folder", f"mv {quoted} {quoted}.old"
        )
    if found.st_uid != host.owner:
        sentence = f"{folder} belongs to user id {found.st_uid}, who may change the record"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, fix)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        sentence = f"{folder} has mode {mode:o}: others than root may change the record"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, fix)
    if mode & 0o055:
        sentence = f"{folder} has mode {mode:o}: others than root may read who your peers are"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, fix)
    return Diagnosis(name, DiagnosisState.OK, "only root may look into it")
