"""Chooses the backend by what the host really uses, and says why.

Legacy tables and nf_tables are asked one after the other, and a packet must pass both. So rules
that are split across them are never added to silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.backends.detect import Flavour, Host, look
from sipfw.backends.iptables_restore import RESTORERS
from sipfw.backends.xtables_parts import missing_forms
from sipfw.backends.xtables_tools import LEGACY_RESTORERS
from sipfw.deploy.live import current
from sipfw.deploy.privilege import require_root
from sipfw.deploy.targets import Target, target
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.backends.lacking import Lack
    from sipfw.deploy.files import Layout

AUTO = "auto"
LEGACY, RESTORE, NFTABLES = "iptables", "iptables-nft", "nftables"
_RECORDED = (LEGACY, RESTORE, NFTABLES)
# What `--backend` takes -> what the record calls it; None is found out.
_ENGINES = {
    AUTO: None,
    "iptables": None,
    "iptables-legacy": LEGACY,
    "iptables-nft": RESTORE,
    "nftables": NFTABLES,
}
_TITLES = {
    LEGACY: "legacy iptables, through python-iptables",
    RESTORE: "iptables of the nf_tables flavour, through iptables-nft-restore",
    NFTABLES: "nftables, table inet sipfw",
}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backend, and what the operator should know about the choice."""

    target: Target
    remarks: tuple[Diagnostic, ...] = ()


def choose(wanted: str, layout: Layout, *, ipset: bool = True) -> Chosen:
    """Return the backend that `--backend` names, or the one that suits the host.

    Raises BackendError where the host's rules are split across legacy tables and nf_tables.
    """
    require_root()
    recorded = current(layout).backend
    if recorded is not None and recorded not in _RECORDED:
        raise BackendError(
            f"{layout.applied}: backend {recorded!r} is not known",
            hint="this sipfw may be older than the one that applied",
        )
    named = _ENGINES[wanted]
    if recorded is not None and (wanted == AUTO or recorded == named):
        return _chosen(recorded, "the last apply used it", wanted, ipset=ipset)
    if recorded in {LEGACY, RESTORE} and wanted == "iptables":
        return _chosen(recorded, "the last apply used it", wanted, ipset=ipset)
    host = look()
    if named is not None:
        return Chosen(target(named, ipset=ipset), _split_warning(host, named))
    if wanted == AUTO:
        name, reason = _that_can(host, *for_host(host, ipset=ipset))
        return _chosen(name, reason, wanted, ipset=ipset)
    name, reason = iptables_engine(host)
    chosen = _chosen(name, reason, wanted, ipset=ipset)
    return Chosen(chosen.target, (*chosen.remarks, *_split_warning(host, name)))


def for_host(host: Host, *, ipset: bool = True) -> tuple[str, str]:
    """Return the name of the backend that suits the host, and why."""
    if host.ours:
        return _ours(host.ours)
    if split := _foreign_split(host):
        raise BackendError(
            split,
            hint="move them to one side, or name the side that sipfw shall use with --backend "
            "iptables-legacy, iptables-nft or nftables",
        )
    if host.legacy:
        return LEGACY, f"all rules of this host are in legacy tables: {_some(host.legacy)}"
    if host.iptables_nft:
        return RESTORE, f"this host has rules made by iptables-nft: {_some(host.iptables_nft)}"
    if host.nft:
        return NFTABLES, f"this host has nftables rules only: {_some(host.nft)}"
    return _for_empty_host(host, ipset=ipset)


def _that_can(host: Host, name: str, reason: str) -> tuple[str, str]:
    """Return nftables where nothing of iptables is in use and its matches are not to be had.

    RHEL 10 and its kin have them in kernel-modules-extra, which iptables-nft need not bring along.
    """
    used = host.ours or host.legacy or host.iptables_nft
    if used or name == NFTABLES or "nft" not in host.programs:
        return name, reason
    lacked = missing_forms(tuple((RESTORERS if name == RESTORE else LEGACY_RESTORERS).items()))
    if not {"u32", "bpf"} <= lacked.keys():
        return name, reason
    return NFTABLES, f"this host has no rules yet, and for iptables {_lacks(lacked)}"


def _lacks(lacked: Mapping[str, Lack]) -> str:
    side = "its program" if lacked["u32"].library else "the kernel"
    return f"{side} has neither xt_u32 nor xt_bpf"


def split_of(host: Host) -> str | None:
    """Say how rules are split over two packet filters; None where they are in one."""
    if len(host.ours) > 1:
        return _twice(host.ours)
    return _foreign_split(host)


def _foreign_split(host: Host) -> str | None:
    if not host.legacy or not (host.iptables_nft or host.nft):
        return None
    return (
        "this host's rules are split, and a packet must pass both sides: legacy iptables has "
        f"{_some(host.legacy)}; nf_tables has {_some((*host.iptables_nft, *host.nft))}"
    )


def iptables_engine(host: Host) -> tuple[str, str]:
    """Return which of the two engines `--backend iptables` means on this host, and why."""
    live = host.ours - {NFTABLES}
    if live:
        return _ours(live)
    if bool(host.legacy) != bool(host.iptables_nft):
        return (
            (LEGACY, f"iptables rules are in legacy tables only: {_some(host.legacy)}")
            if host.legacy
            else (RESTORE, f"iptables rules were made by iptables-nft: {_some(host.iptables_nft)}")
        )
    match host.flavour:
        case Flavour.NF_TABLES:
            return RESTORE, "`iptables --version` says nf_tables"
        case Flavour.LEGACY:
            return LEGACY, "`iptables --version` says legacy"
    raise BackendError(
        "this host has no iptables command", hint="install package iptables, or --backend nftables"
    )


def _ours(live: frozenset[str]) -> tuple[str, str]:
    if len(live) > 1:
        raise BackendError(_twice(live), hint="run sipfw remove, then apply again")
    (name,) = live
    return name, "rules of sipfw are live there, though no apply is on record"


def _twice(live: frozenset[str]) -> str:
    return f"rules of sipfw are live in {' and '.join(sorted(live))}"


def _for_empty_host(host: Host, *, ipset: bool) -> tuple[str, str]:
    empty = "this host has no rules yet, and"
    if host.flavour is Flavour.LEGACY and host.legacy_core:
        return LEGACY, f"{empty} `iptables --version` says legacy"
    if host.flavour is Flavour.NF_TABLES and "iptables-nft-save" in host.programs:
        if not ipset or "ipset" in host.programs or "nft" not in host.programs:
            return RESTORE, f"{empty} `iptables --version` says nf_tables"
        return NFTABLES, f"{empty} no ipset program, which iptables would need"
    if "nft" not in host.programs:
        raise BackendError("this host has neither iptables nor nft", hint="install nftables")
    lacks = "the kernel has no legacy tables" if host.flavour else "no iptables command"
    return NFTABLES, f"{empty} {lacks}"


def _split_warning(host: Host, name: str) -> tuple[Diagnostic, ...]:
    """Warn of rules on the side where sipfw will not be."""
    if name == LEGACY:
        other, side = (*host.iptables_nft, *host.nft), "nf_tables"
    else:
        other, side = host.legacy, "legacy iptables"
    if not other:
        return ()
    message = (
        f"sipfw goes into {_TITLES[name].partition(',')[0]}, and {side} has rules too, which a "
        f"packet must pass as well: {_some(other)}"
    )
    return (Diagnostic(message, "backend", severity=Severity.WARNING),)


def _chosen(name: str, reason: str, wanted: str, *, ipset: bool) -> Chosen:
    if wanted not in {AUTO, "iptables"}:
        return Chosen(target(name, ipset=ipset))
    note = Diagnostic(f"{_TITLES[name]}: {reason}", "backend", severity=Severity.NOTE)
    return Chosen(target(name, ipset=ipset), (note,))


def _some(places: Sequence[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
