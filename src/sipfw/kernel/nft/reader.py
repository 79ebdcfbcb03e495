"""Our nftables table in the neutral form that `verify` compares.

nft's listing says that a rule has an xtables match, not what it looks for. That part is read by
netlink, from the network namespace of the calling thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compare.live import Live, LiveChain, LiveJump, LiveSetState
from sipfw.kernel.nft.foreign import foreign_rule
from sipfw.kernel.nft.searches import read_searches
from sipfw.lower.naming import split_nft_chain
from sipfw.lower.nftables_hooks import base_lines, hook_families
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.compare.foreign import ForeignRule
    from sipfw.compare.live import LiveRule
    from sipfw.kernel.nft.tool import ListedChain, NftListing

_XT_MATCH = '{"xt":{'


def nft_live(listing: NftListing | None) -> Live:
    """Return the listing in neutral form; empty when we have no table."""
    if listing is None:
        return Live((), (), ())
    chains: list[LiveChain] = []
    jumps: list[LiveJump] = []
    strangers: list[str] = []
    for chain in listing.chains.values():
        if chain.hook is not None:
            jumps += _jumps(chain)
            if not chain.rules:
                strangers.append(_place(chain))
            continue
        place = split_nft_chain(chain.name)
        if place is None:
            strangers.append(chain.name)
        else:
            chains.append(LiveChain(place[1], "sipfw", place[0], _with_searches(chain)))
    sets = tuple(
        LiveSetState(item.name, item.type, _header(item.header), item.entries, item.elements)
        for item in listing.sets.values()
    )
    return Live(tuple(chains), tuple(jumps), sets, listing.dormant, strangers=tuple(strangers))


def _with_searches(chain: ListedChain) -> tuple[LiveRule, ...]:
    if not any(_XT_MATCH in rule.line for rule in chain.rules):
        return chain.rules
    found = read_searches(chain.name)
    if len(found) != len(chain.rules):
        # Changed since it was listed, or listed elsewhere: then nothing is known of it.
        return chain.rules
    pairs = zip(chain.rules, found, strict=True)
    return tuple(replace(rule, search=search) for rule, search in pairs)


def _jumps(chain: ListedChain) -> list[LiveJump]:
    """Return the rules of a base chain for each family that they are for."""
    name = _place(chain)
    jumps = []
    for family in Family:
        before: list[ForeignRule] = []
        for rule in chain.rules:
            if family not in _families(rule):
                continue
            jumps.append(LiveJump(family, "sipfw", name, rule, tuple(before)))
            if rule.rule_id is None:
                before.append(foreign_rule(rule.line))
    return jumps


def _place(chain: ListedChain) -> str:
    """Name a base chain, with its own words where it is hooked otherwise than its name says."""
    meant = base_lines().get(chain.name)
    return chain.name if meant in (None, chain.base) else f"{chain.name} ({chain.base})"


def _families(rule: LiveRule) -> tuple[Family, ...]:
    if rule.rule_id is not None:
        return hook_families(rule.rule_id)
    # A rule of somebody else may say its family anywhere; both are named then.
    return tuple(Family)


def _header(words: tuple[str, ...]) -> tuple[str, ...]:
    """Say a set's size as ipset does, so that one comparison serves both."""
    return tuple("maxelem" if word == "size" else word for word in words)
