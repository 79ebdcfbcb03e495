"""sipfw's own part: where its rules are, whether they are live, what waits, who may read it."""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

from sipfw.deploy import journal as journals
from sipfw.deploy.repair import Unfinished, waiting_text, what, why
from sipfw.doctor.findings import CannotTellError, DamagedError, Finding, State
from sipfw.doctor.host import cannot_read
from sipfw.verify.drift import drift
from sipfw.words import counted, span_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.doctor.host import Host

_SHOWN = 3
# Below this nobody counts seconds.
_NOW = 60


def backend(host: Host) -> Finding:
    """Tell whether the host's rules are split over legacy tables and nf_tables."""
    name = "backend"
    found = host.packet_filter
    if len(found.ours) > 1:
        sentence = f"rules of sipfw are live in {' and '.join(sorted(found.ours))} at once"
        return Finding(name, State.PROBLEM, sentence, "sipfw remove && sipfw apply")
    newer = (*found.iptables_nft, *found.nft)
    ours = next(iter(found.ours), None)
    if found.legacy and newer:
        sentence = (
            "rules are split, and a packet must pass both sides: legacy iptables has "
            f"{_some(found.legacy)}; nf_tables has {_some(newer)}; move them to one side"
        )
        fix = "iptables-legacy-save; ip6tables-legacy-save; nft -t list ruleset"
        return Finding(name, State.PROBLEM, sentence, fix)
    if ours is not None:
        other, side = (newer, "nf_tables") if ours == "iptables" else (found.legacy, "legacy")
        if other:
            sentence = f"sipfw is in {ours}, and {side} has rules too: {_some(other)}"
            return Finding(name, State.WARNING, sentence, "sipfw remove && sipfw apply")
        return Finding(name, State.OK, f"all rules are where sipfw's are: {ours}")
    if not found.programs & {"iptables", "nft"}:
        sentence = "this host has neither iptables nor nft"
        return Finding(
            name, State.PROBLEM, sentence, "apt install nftables || dnf install nftables"
        )
    used = "legacy iptables" if found.legacy else "nf_tables" if newer else None
    return Finding(name, State.OK, f"all rules are in {used}" if used else "no rules yet")


def _some(places: Sequence[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def last_apply(host: Host) -> Finding:
    """Tell when sipfw was applied last."""
    name = "last-apply"
    try:
        applied = host.applied
    except DamagedError as error:
        return Finding(name, State.PROBLEM, f"the record is damaged: {error}", "sipfw apply")
    if applied is None:
        try:
            ours = sorted(host.packet_filter.ours)
        except CannotTellError:
            ours = []
        if ours:
            sentence = f"no apply is on record; rules of sipfw are live in {ours[0]}"
            return Finding(name, State.OK, sentence)
        return Finding(name, State.WARNING, "sipfw was not applied yet", "sipfw apply")
    seconds = host.now - host.layout.applied.stat().st_mtime
    number = "" if applied.generation is None else f"generation {applied.generation}, "
    if seconds < -60:
        sentence = f"{number}{applied.backend}, applied in the future: the clock was set back"
        return Finding(name, State.WARNING, sentence, "timedatectl set-ntp true")
    return Finding(name, State.OK, f"{number}{applied.backend}, {_age(seconds)}")


def _age(seconds: float) -> str:
    return f"{span_text(seconds)} ago" if seconds >= _NOW else "just now"


def live(host: Host) -> Finding:
    """Tell whether the applied firewall is the one in the kernel."""
    name = "live"
    applied = host.applied
    if applied is None:
        return Finding(name, State.OK, "nothing is on record that should be live")
    again = "sipfw apply" if applied.generation is None else "sipfw restore"
    if not host.runs_our_rules:
        sentence = f"the applied firewall is not in the kernel ({applied.backend}): SIP is open"
        return Finding(name, State.PROBLEM, sentence, again)
    different = drift(applied.expectation, host.live)
    if different:
        places = counted(len(different), "place")
        sentence = f"the live firewall differs in {places}, first: {different[0]}"
        return Finding(name, State.PROBLEM, sentence, again)
    return Finding(name, State.OK, "the live firewall is the applied one")


def pending(host: Host) -> Finding:
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
            return Finding(name, State.PROBLEM, sentence, "sipfw rollback")
        if journal is not None:
            return _unfinished(host, Unfinished(journal, undoing))
    return Finding(name, State.OK, "no change waits to be confirmed")


def _unfinished(host: Host, change: Unfinished) -> Finding:
    journal = change.journal
    if change.open and journal.seconds_left() > 0:
        sentence = f"{waiting_text(journal)}, then it is taken back"
        return Finding("pending", State.WARNING, sentence, "sipfw confirm")
    if journal.boot == journals.boot_id() and (host.proc / str(journal.group)).is_dir():
        sentence = f"{what(journal)} is being changed now; look again in a minute"
        return Finding("pending", State.WARNING, sentence, "sipfw history")
    sentence = f"{what(journal)} was left without an end: {why(change)}"
    return Finding("pending", State.PROBLEM, sentence, "sipfw rollback")


def state_folder(host: Host) -> Finding:
    """Tell whether anybody but root may look into the state folder: it names every peer."""
    name, folder = "state-folder", host.layout.state
    try:
        found = folder.stat()
    except FileNotFoundError:
        return Finding(name, State.OK, f"{folder} is not there yet")
    except OSError as error:
        raise cannot_read(folder, error) from error
    quoted = shlex.quote(str(folder))
    fix = f"chown root:root {quoted} && chmod 700 {quoted}"
    if not stat.S_ISDIR(found.st_mode):
        return Finding(name, State.PROBLEM, f"{folder} is no folder", f"mv {quoted} {quoted}.old")
    if found.st_uid != host.owner:
        sentence = f"{folder} belongs to user id {found.st_uid}, who may change the record"
        return Finding(name, State.PROBLEM, sentence, fix)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        sentence = f"{folder} has mode {mode:o}: others than root may change the record"
        return Finding(name, State.PROBLEM, sentence, fix)
    if mode & 0o055:
        sentence = f"{folder} has mode {mode:o}: others than root may read who your peers are"
        return Finding(name, State.PROBLEM, sentence, fix)
    return Finding(name, State.OK, "only root may look into it")
