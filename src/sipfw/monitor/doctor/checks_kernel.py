"""The kernel under it: are the matches there that the rules need, does the clock run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sipfw.kernel.backend import backend_of, backends
from sipfw.kernel.distribution import read_distribution
from sipfw.monitor.doctor.findings import AbsentError, CannotTellError, Diagnosis, DiagnosisState

if TYPE_CHECKING:
    from sipfw.kernel.backend import Backend
    from sipfw.monitor.doctor.host import HostView

# As `iptables -S` and nft list it.
_NOTES = re.compile(r"-j (?:NF)?LOG\b|\blog prefix ")
_TO_GROUP = re.compile(r"-j NFLOG\b|\blog prefix .* group ")
# RHEL 9 has no xt_u32; xt_bpf compares the same bytes.
_STANDS_IN = "xt_bpf"
_YEAR = 2024
_REGISTERED = tuple(
    f"{family}_tables_{what}" for family in ("ip", "ip6") for what in ("matches", "targets")
)


def matches(host: HostView) -> Diagnosis:
    """Tell whether the kernel has what the rules ask; nothing is loaded to find out."""
    name = "kernel-matches"
    wanted = _backend(host).modules(_log_readers(host))
    present = _registered(host) | host.loaded_modules
    missing = [item for item in wanted.needed if item not in present and not host.has_module(item)]
    if _STANDS_IN in present or host.has_module(_STANDS_IN):
        missing = [item for item in missing if item != "xt_u32"]
    if not missing:
        return Diagnosis(name, DiagnosisState.OK, "the kernel has every match")
    if not _loading_allowed(host):
        sentence = f"loading of modules is forbidden, and not loaded: {_short(missing)}"
        return Diagnosis(name, DiagnosisState.PROBLEM, sentence, "reboot")
    try:
        missing = [item for item in missing if item not in host.loadable_modules]
        if _STANDS_IN in host.loadable_modules:
            missing = [item for item in missing if item != "xt_u32"]
    except AbsentError as error:
        if host.is_root and host.runs_our_rules:
            return Diagnosis(name, DiagnosisState.OK, "the kernel runs the applied firewall")
        sentence = f"{_short(missing)}: not loaded, and {error}; reboot after a kernel update"
        return Diagnosis(name, DiagnosisState.UNKNOWN, sentence)
    if not missing:
        return Diagnosis(name, DiagnosisState.OK, "the kernel has every match or can load it")
    bearable = wanted.dispensable.issuperset(missing)
    sentence = f"this kernel lacks {_short(missing)}"
    state = DiagnosisState.WARNING if bearable else DiagnosisState.PROBLEM
    return Diagnosis(name, state, sentence, _install(host, missing))


def _backend(host: HostView) -> Backend:
    """Take the applied backend; without a record what the host's programs suggest."""
    try:
        if host.applied is not None:
            return backend_of(host.applied.backend)
    except CannotTellError:
        pass
    known = backends()
    # Where there is none yet, the last one is what choosing says to install.
    return next((item for item in known if host.installed(item.facts.program)), known[-1])


def _log_readers(host: HostView) -> set[str]:
    """Return for whom packets are logged, by the policy file and by the applied firewall."""
    found = set() if host.log_reader is None else {host.log_reader}
    try:
        applied = host.applied
    except CannotTellError:
        return found
    chains = () if applied is None else applied.expectation.chains
    lines = (str(rule.line) for chain in chains for rule in chain.rules if rule.action == "note")
    return found | {
        "nflog" if _TO_GROUP.search(line) else "log" for line in lines if _NOTES.search(line)
    }


def _registered(host: HostView) -> set[str]:
    """Return the modules of the matches and targets that x_tables knows, built in or loaded.

    The files can be read by root only, and are not there without the legacy core.
    """
    found = set()
    for file in _REGISTERED:
        try:
            found |= {f"xt_{item}" for item in host.text(host.proc / "net" / file).split()}
        except CannotTellError:
            continue
    return found


def _loading_allowed(host: HostView) -> bool:
    try:
        return host.setting("kernel/modules_disabled") == 0
    except AbsentError:
        return True


def _short(modules: list[str]) -> str:
    return ", ".join(modules)


def _install(host: HostView, missing: list[str]) -> str | None:
    """Name the command that brings modules which are not in this system's kernel package."""
    return read_distribution(host.root).modules_command(missing)


def clock(host: HostView) -> Diagnosis:
    """Tell whether the clock was ever set: records, TLS and logs go by it."""
    year = datetime.fromtimestamp(host.now, UTC).year
    if year >= _YEAR:
        return Diagnosis("clock", DiagnosisState.OK, "it is set")
    return Diagnosis(
        "clock", DiagnosisState.PROBLEM, f"the clock says {year}", "timedatectl set-ntp true"
    )
