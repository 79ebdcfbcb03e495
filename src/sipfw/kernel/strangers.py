"""What stands among our things and is not ours: chains and sets of our table, sets of our name.

A rule of ours carries our comment. A set carries nothing, so it is ours when a rule of ours uses
it, or when an apply on record made one of that name and type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.ipset import OUR_PREFIX
from sipfw.kernel.xtables.ipset_text import temporary_name
from sipfw.lower.nftables_hooks import base_lines
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sipfw.kernel.nft.tool import ListedChain, NftListing
    from sipfw.kernel.xtables.ipset import LiveSet
    from sipfw.kernel.xtables.tools import Tables

_XT_SET = re.compile(r"--(?:match-set|add-set|del-set) (\S+)")
_NFT_SET = re.compile(r'"@([^"]+)"')
_OUR_CHAIN = re.compile(r"SIP(?:FW)?_[A-Z_]+")
_TEMPORARY = temporary_name("")[: len("sipfw-tmp-")]


@dataclass(frozen=True, slots=True)
class Strangers:
    """Names of chains and sets that are not ours, and rules of others in chains of ours.

    `details` has one text for each chain and set, for people.
    """

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    rules: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All names; chains and sets share no name that matters to whoever leaves both alone."""
        return self.chains | self.sets


def strangers_in_iptables(
    tables: Tables, sets: Iterable[LiveSet], known: Collection[tuple[str, str]]
) -> Strangers:
    """Look at the sets of our name; chains are the business of whoever edits a table."""
    rules = [rule for table in tables.values() for rule in table.rules]
    used = {name for rule in rules if rule.is_ours for name in _XT_SET.findall(rule.line)}
    foreign = [
        item
        for item in sets
        if item.name.startswith(OUR_PREFIX)
        and not item.name.startswith(_TEMPORARY)
        and item.name not in used
        and (item.name, item.type) not in known
    ]
    others = [
        f"{family} {table.name} {rule.line}"
        for (family, _), table in tables.items()
        for chain in table.chains
        if chain.is_ours
        for rule in chain.rules
        if not rule.is_ours
    ]
    details = tuple(f"set {item.name} ({item.type})" for item in foreign)
    return Strangers(frozenset(), frozenset(i.name for i in foreign), tuple(others), details)


def strangers_in_nft(listing: NftListing | None, known: Collection[tuple[str, str]]) -> Strangers:
    """Look at the chains and sets of our table."""
    if listing is None:
        return Strangers()
    chains = [chain for chain in listing.chains.values() if _is_foreign(chain)]
    used = set(_sets_of_ours(listing))
    sets = [
        item
        for item in listing.sets.values()
        if item.name not in used and (item.name, item.type) not in known
    ]
    foreign = frozenset(chain.name for chain in chains)
    others = [
        f"{chain.name} {rule.line}"
        for chain in listing.chains.values()
        if chain.name not in foreign
        for rule in chain.rules
        if rule.rule_id is None
    ]
    details = [f"chain {c.name} ({pluralize(len(c.rules), 'rule')})" for c in chains]
    details += [f"set {item.name} ({item.type})" for item in sets]
    return Strangers(foreign, frozenset(item.name for item in sets), tuple(others), tuple(details))


def _is_foreign(chain: ListedChain) -> bool:
    if any(rule.rule_id is not None for rule in chain.rules):
        return False
    # Somebody may have emptied a chain of ours, and an apply that was killed leaves empty ones.
    ours = chain.name in base_lines() if chain.hook else _OUR_CHAIN.match(chain.name) is not None
    return bool(chain.rules) or not ours


def _sets_of_ours(listing: NftListing) -> Iterator[str]:
    for chain in listing.chains.values():
        for rule in chain.rules:
            if rule.rule_id is not None:
                yield from _NFT_SET.findall(rule.line)
