"""nft's listing as ways. A rule with a verdict map is a step for each of its entries."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sipfw.kernel.nft.foreign_text import foreign_rule
from sipfw.lower.nftables_plan import TABLE
from sipfw.lower.xtables import Family
from sipfw.monitor.host_path.ways import NO_CHAINS, ChainSteps, HookChains
from sipfw.ruleset.model import Base, Hook, Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.kernel.nft.text_listing import NftBlock
    from sipfw.monitor.doctor.rules import XtablesListing
    from sipfw.monitor.host_path.fit import Network

_FAMILIES = {
    "inet": frozenset(Family),
    "netdev": frozenset(Family),
    "ip": frozenset({Family.IP}),
    "ip6": frozenset({Family.IP6}),
}
_HOOKS = frozenset({"ingress", "prerouting", "input", "output", "postrouting", "egress"})


def ways(
    blocks: Sequence[NftBlock],
    xtables: Sequence[XtablesListing],
    members: Callable[[str, str, str, Network], bool | None] | None = None,
    listing: Callable[[str, str, str], str | None] | None = None,
) -> Iterator[HookChains]:
    """Return the base chains that packets pass; of our own table only their place.

    Those that iptables-nft has listed are left out: nft shows them too. `members` looks into a
    named set of a family and table, `listing` lists the elements of any other set or map.
    """
    listed = {
        (str(Family.IP6 if item.program.startswith("ip6") else Family.IP), item.table, chain)
        for item in xtables
        if item.program.endswith("-nft")
        for chain in (head.name for head in item.chains)
    }
    chains: dict[tuple[str, str], list[NftBlock]] = {}
    for block in blocks:
        if block.is_chain:
            chains.setdefault((block.family, block.table), []).append(block)
    for (family, table), found in chains.items():
        if all((family, table, block.name) in listed for block in found):
            continue
        look = None if members is None else partial(members, family, table)
        ours = (family, table) == ("inet", TABLE)
        names = None if listing is None else partial(listing, family, table)
        known = NO_CHAINS if ours else _chains(found, names)
        for block in found:
            if block.hook not in _HOOKS or family not in _FAMILIES:
                continue
            if (family, table, block.name) in listed:
                continue
            yield HookChains(
                f"nft {family} {table} {block.name}",
                _FAMILIES[family],
                block.name,
                block.drops and not ours,
                known,
                ("nft", family, table, block.name),
                xtables=False,
                hook=block.hook,
                priority=block.priority,
                kind=block.type,
                devices=block.devices,
                ours=_base(block) if ours else None,
                members=look,
            )


def _chains(blocks: Sequence[NftBlock], listing: Callable[[str], str | None] | None) -> ChainSteps:
    """Each line is read once, when its chain is asked for."""
    return ChainSteps(
        {
            block.name: tuple(foreign_rule(line, listing) for line in block.lines)
            for block in blocks
        },
        [block.name for block in blocks if block.hook is not None],
        (block.name for block in blocks),
    )


def _base(block: NftBlock) -> Base | None:
    priority, _, hook = block.name.partition("_")
    try:
        return Base(Hook(hook), Priority(priority))
    except ValueError:
        return None
