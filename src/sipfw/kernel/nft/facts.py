"""What is true of the backend of nftables on every host, and which hosts it suits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.kernel.backend import Facts, Modules, Side

if TYPE_CHECKING:
    from collections.abc import Collection

    from sipfw.kernel.detect import PacketFilters

NAME = "nftables"
FACTS = Facts(
    turn=3,
    title="nftables, table inet sipfw",
    words=(NAME,),
    side=Side.NF_TABLES,
    program="nft",
    lister="nft",
    sets="nf_tables",
    together=True,
    own_table=True,
)
_MODULES = ("nf_tables", "nft_ct", "nft_limit", "nft_connlimit")
# What text searches need; without them the other layers still stand.
_TEXTS = ("nft_compat", "xt_string")


def modules(log_readers: Collection[str]) -> Modules:
    """Name what the rules need; one module writes log lines for both readers."""
    logging = ("nft_log",) if log_readers else ()
    return Modules((*_MODULES, *_TEXTS, *logging), frozenset(_TEXTS))


def suits(host: PacketFilters) -> str | None:
    """Say why it suits the host; it is asked after iptables, so that it gets an empty host last."""
    from sipfw.kernel.detect import Flavour, some  # noqa: PLC0415 - who reads state needs neither

    if host.nft:
        return f"this host has nftables rules only: {some(host.nft)}"
    if not host.is_empty or "nft" not in host.programs:
        return None
    empty = "this host has no rules yet, and"
    works = host.flavour is Flavour.NF_TABLES and "iptables-nft-save" in host.programs
    if works and "ipset" not in host.programs:
        return f"{empty} no ipset program, which iptables would need"
    lacks = "the kernel has no legacy tables" if host.flavour else "no iptables command"
    return f"{empty} {lacks}"
