"""nft's listing as ways. A rule with a verdict map is a step for each of its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.kernel.nft.foreign_text import foreign_rule
from sipfw.lower.nftables_plan import TABLE
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.stricter.ways import HookChains, steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.kernel.nft.text_listing import NftBlock
    from sipfw.monitor.doctor.rules import XtablesListing

_FAMILIES = {
    "inet": frozenset(Family),
    "ip": frozenset({Family.IP}),
    "ip6": frozenset({Family.IP6}),
}
_HOOKS = frozenset({"input", "prerouting"})


def ways(blocks: Sequence[NftBlock], xtables: Sequence[XtablesListing]) -> Iterator[HookChains]:
    """Return the base chains that packets to this host pass, without ours.

    Those that iptables-nft has listed are left out: nft shows them too.
    """
    listed = {
        (str(Family.IP6 if item.program.startswith("ip6") else Family.IP), item.table, chain)
        for item in xtables
        if item.program.endswith("-nft")
        for chain in (head.name for head in item.chains)
    }
    chains: dict[tuple[str, str], list[NftBlock]] = {}
    for block in blocks:
        if block.is_chain and (block.family, block.table) != ("inet", TABLE):
            chains.setdefault((block.family, block.table), []).append(block)
    for (family, table), found in chains.items():
        known = {
            block.name: tuple(
                steps(map(foreign_rule, block.lines), numbered=block.hook is not None)
            )
            for block in found
        }
        for block in found:
            if block.hook not in _HOOKS or family not in _FAMILIES:
                continue
            if (family, table, block.name) in listed:
                continue
            yield HookChains(
                f"nft {family} {table} {block.name}",
                _FAMILIES[family],
                block.name,
                block.drops,
                known,
                ("nft", family, table, block.name),
                xtables=False,
            )
