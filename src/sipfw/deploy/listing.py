"""What people read in a generation's folder: the rules as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower import iptables, nftables
from sipfw.render.nft import nft_text
from sipfw.render.script import script_text

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset


def listing_text(ruleset: Ruleset, backend: str, *, ipset: bool) -> str:
    """Return nft text for nftables and the shell script for everything else."""
    if backend == "nftables":
        return nft_text(nftables.lower(ruleset))
    summaries = {chain.name: chain.summary for chain in ruleset.chains}
    plan = iptables.lower(ruleset, ipset=ipset)
    return script_text(plan, ruleset.sysctls, summaries=summaries)
