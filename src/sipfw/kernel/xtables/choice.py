"""Which hosts legacy iptables and its nf_tables flavour suit; which of them `iptables` means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.detect import Flavour, some, the_one_of
from sipfw.kernel.xtables.facts import LEGACY, NFT_FLAVOUR
from sipfw.kernel.xtables.parts import missing_forms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.kernel.detect import PacketFilters
    from sipfw.ruleset.rule import Family

_EMPTY = "this host has no rules yet, and"


def suits_legacy(host: PacketFilters) -> str | None:
    """Say why legacy tables suit the host."""
    if host.legacy:
        return f"all rules of this host are in legacy tables: {some(host.legacy)}"
    if host.is_empty and host.flavour is Flavour.LEGACY and host.legacy_core:
        return f"{_EMPTY} `iptables --version` says legacy"
    return None


def suits_nft_flavour(host: PacketFilters, *, ipset: bool) -> str | None:
    """Say why iptables-nft suits the host; without ipset only where nothing else is to be had."""
    if host.iptables_nft:
        return f"this host has rules made by iptables-nft: {some(host.iptables_nft)}"
    works = host.flavour is Flavour.NF_TABLES and "iptables-nft-save" in host.programs
    sets = not ipset or "ipset" in host.programs or "nft" not in host.programs
    if host.is_empty and works and sets:
        return f"{_EMPTY} `iptables --version` says nf_tables"
    return None


def iptables_engine(host: PacketFilters) -> tuple[str, str]:
    """Return which of the two engines `--backend iptables` means on this host, and why."""
    live = host.ours & {LEGACY, NFT_FLAVOUR}
    if live:
        return the_one_of(live)
    if bool(host.legacy) != bool(host.iptables_nft):
        return (
            (LEGACY, f"iptables rules are in legacy tables only: {some(host.legacy)}")
            if host.legacy
            else (
                NFT_FLAVOUR,
                f"iptables rules were made by iptables-nft: {some(host.iptables_nft)}",
            )
        )
    match host.flavour:
        case Flavour.NF_TABLES:
            return NFT_FLAVOUR, "`iptables --version` says nf_tables"
        case Flavour.LEGACY:
            return LEGACY, "`iptables --version` says legacy"
    raise BackendError(
        "this host has no iptables command", hint="install package iptables, or --backend nftables"
    )


def lack(programs: Mapping[Family, str]) -> str | None:
    """Say so where fixed bytes of a packet cannot be compared at all.

    RHEL 10 and its kin have both matches in kernel-modules-extra, which iptables-nft need not
    bring along.
    """
    lacked = missing_forms(tuple(programs.items()))
    if not {"u32", "bpf"} <= lacked.keys():
        return None
    side = "its program" if lacked["u32"].library else "the kernel"
    return f"for iptables {side} has neither xt_u32 nor xt_bpf"
