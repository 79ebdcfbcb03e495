"""The kernel under it: are the matches there that the rules need, does the clock run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sipfw.backends.distribution import read_distribution
from sipfw.doctor.findings import AbsentError, CannotTellError, Finding, State

if TYPE_CHECKING:
    from sipfw.doctor.host import Host

# Matches of x_tables by their modules; the kernel lists them without the prefix.
_XTABLES = tuple(
    f"xt_{name}"
    for name in (
        "comment",
        "conntrack",
        "connlimit",
        "hashlimit",
        "length",
        "limit",
        "multiport",
        "recent",
        "set",
        "string",
        "u32",
    )
)
_NFTABLES = ("nf_tables", "nft_ct", "nft_limit", "nft_connlimit")
# What text searches need; without them the other layers still stand.
_NFT_TEXTS = ("nft_compat", "xt_string")
_WANTED = {
    "iptables": _XTABLES,
    # Which reaches them through nft_compat.
    "iptables-nft": (*_XTABLES, "nf_tables", "nft_compat"),
    "nftables": (*_NFTABLES, *_NFT_TEXTS),
}
# What writes the log lines of dropped packets, by backend and reader of the lines.
_LOGGING = {
    ("iptables", "log"): "xt_LOG",
    ("iptables", "nflog"): "xt_NFLOG",
    ("iptables-nft", "log"): "xt_LOG",
    # Since iptables 1.8.8 NFLOG is nf_tables' own there, and LOG is not.
    ("iptables-nft", "nflog"): "nft_log",
    ("nftables", "log"): "nft_log",
    ("nftables", "nflog"): "nft_log",
}
# As `iptables -S` and nft list it.
_NOTES = re.compile(r"-j (?:NF)?LOG\b|\blog prefix ")
_TO_GROUP = re.compile(r"-j NFLOG\b|\blog prefix .* group ")
# RHEL 9 has no xt_u32; xt_bpf compares the same bytes.
_STANDS_IN = "xt_bpf"
_YEAR = 2024
_REGISTERED = tuple(
    f"{family}_tables_{what}" for family in ("ip", "ip6") for what in ("matches", "targets")
)


def matches(host: Host) -> Finding:
    """Tell whether the kernel has what the rules ask; nothing is loaded to find out."""
    name = "kernel-matches"
    backend = _backend(host)
    logging = {_LOGGING[backend, reader] for reader in _log_readers(host)}
    wanted = [*_WANTED[backend], *sorted(logging)]
    present = _registered(host) | host.loaded_modules
    missing = [item for item in wanted if item not in present and not host.has_module(item)]
    if _STANDS_IN in present or host.has_module(_STANDS_IN):
        missing = [item for item in missing if item != "xt_u32"]
    if not missing:
        return Finding(name, State.OK, "the kernel has every match")
    if not _loading_allowed(host):
        sentence = f"loading of modules is forbidden, and not loaded: {_short(missing)}"
        return Finding(name, State.PROBLEM, sentence, "reboot")
    try:
        missing = [item for item in missing if item not in host.loadable_modules]
        if _STANDS_IN in host.loadable_modules:
            missing = [item for item in missing if item != "xt_u32"]
    except AbsentError as error:
        if host.is_root and host.runs_our_rules:
            return Finding(name, State.OK, "the kernel runs the applied firewall")
        sentence = f"{_short(missing)}: not loaded, and {error}; reboot after a kernel update"
        return Finding(name, State.UNKNOWN, sentence)
    if not missing:
        return Finding(name, State.OK, "the kernel has every match or can load it")
    only_texts = backend == "nftables" and not set(missing) - {*_NFT_TEXTS}
    sentence = f"this kernel lacks {_short(missing)}"
    state = State.WARNING if only_texts else State.PROBLEM
    return Finding(name, state, sentence, _install(host, missing))


def _backend(host: Host) -> str:
    """Take the applied backend; without a record what the host's programs suggest."""
    try:
        if host.applied is not None:
            return host.applied.backend
    except CannotTellError:
        pass
    return "iptables" if host.installed("iptables") else "nftables"


def _log_readers(host: Host) -> set[str]:
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


def _registered(host: Host) -> set[str]:
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


def _loading_allowed(host: Host) -> bool:
    try:
        return host.setting("kernel/modules_disabled") == 0
    except AbsentError:
        return True


def _short(modules: list[str]) -> str:
    return ", ".join(modules)


def _install(host: Host, missing: list[str]) -> str | None:
    """Name the command that brings modules which are not in this system's kernel package."""
    return read_distribution(host.root).modules_command(missing)


def clock(host: Host) -> Finding:
    """Tell whether the clock was ever set: records, TLS and logs go by it."""
    year = datetime.fromtimestamp(host.now, UTC).year
    if year >= _YEAR:
        return Finding("clock", State.OK, "it is set")
    return Finding("clock", State.PROBLEM, f"the clock says {year}", "timedatectl set-ntp true")
