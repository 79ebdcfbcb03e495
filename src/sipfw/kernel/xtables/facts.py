"""What the record calls the two backends of iptables, and what each needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.kernel.backend import Facts, Modules, Side

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LEGACY, NFT_FLAVOUR = "iptables", "iptables-nft"

LEGACY_FACTS = Facts(
    turn=1,
    title="legacy iptables, through python-iptables",
    words=("iptables", "iptables-legacy"),
    side=Side.LEGACY,
    program="iptables",
    lister="iptables-legacy-save",
    sets="ipset",
)
NFT_FLAVOUR_FACTS = Facts(
    turn=2,
    title="iptables of the nf_tables flavour, through iptables-nft-restore",
    words=("iptables", "iptables-nft"),
    side=Side.NF_TABLES,
    program="iptables",
    lister="iptables-nft-save",
    sets="ipset",
    refuge="nftables",
)

# Matches of x_tables by their modules; the kernel lists them without the prefix.
_MATCHES = tuple(
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
_LEGACY_LOGGING = {"log": "xt_LOG", "nflog": "xt_NFLOG"}
# Since iptables 1.8.8 NFLOG is nf_tables' own there, and LOG is not.
_NFT_FLAVOUR_LOGGING = {"log": "xt_LOG", "nflog": "nft_log"}


def legacy_modules(log_readers: Collection[str]) -> Modules:
    """Name what rules in legacy tables need."""
    return Modules((*_MATCHES, *_logging(_LEGACY_LOGGING, log_readers)))


def nft_flavour_modules(log_readers: Collection[str]) -> Modules:
    """Name what rules of iptables-nft need, which reaches the matches through nft_compat."""
    logging = _logging(_NFT_FLAVOUR_LOGGING, log_readers)
    return Modules((*_MATCHES, "nf_tables", "nft_compat", *logging))


def _logging(writers: Mapping[str, str], log_readers: Collection[str]) -> list[str]:
    return sorted({writers[item] for item in log_readers})
