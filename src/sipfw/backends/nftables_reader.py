"""Our nftables table in the neutral form that `verify` compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.backends.interface import Live, LiveChain, LiveJump, LiveSetState
from sipfw.lower.naming import split_nft_chain
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.backends.nft_tool import NftListing


def nft_live(listing: NftListing | None) -> Live:
    """Return the listing in neutral form; empty when we have no table."""
    if listing is None:
        return Live((), (), ())
    chains: list[LiveChain] = []
    jumps: list[LiveJump] = []
    for chain in listing.chains.values():
        if chain.hook is not None:
            # One rule leads both families into their chains.
            jumps += [
                LiveJump(family, "sipfw", chain.name, rule, ())
                for rule in chain.rules
                for family in Family
            ]
            continue
        place = split_nft_chain(chain.name)
        if place is not None:
            chains.append(LiveChain(place[1], "sipfw", place[0], chain.rules))
    sets = tuple(
        LiveSetState(item.name, item.type, _header(item.header), item.entries, item.elements)
        for item in listing.sets.values()
    )
    return Live(tuple(chains), tuple(jumps), sets)


def _header(words: tuple[str, ...]) -> tuple[str, ...]:
    """Say a set's size as ipset does, so that one comparison serves both."""
    return tuple("maxelem" if word == "size" else word for word in words)
