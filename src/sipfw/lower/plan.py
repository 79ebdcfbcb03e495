"""What both lowered forms have in common: chains, hooks and sets in one shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, assert_never

from sipfw.lower.naming import search_words, split_comment, split_nft_chain
from sipfw.lower.nftables_hooks import hook_families
from sipfw.lower.nftables_plan import TABLE, NftPlan
from sipfw.lower.xtables import XPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.lower.nftables_plan import NftSet
    from sipfw.lower.xtables import XSet
    from sipfw.ruleset.rule import Family

LoweredPlan: TypeAlias = XPlan | NftPlan


@dataclass(frozen=True, slots=True)
class PlannedRule:
    """A rule by its mark; `search` is the text it looks for where no listing would show it."""

    id: str
    digest: str
    search: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedChain:
    """A chain of one family; `of` is the chain of the ruleset that it comes from."""

    family: Family
    table: str
    name: str
    of: str
    rules: tuple[PlannedRule, ...]


@dataclass(frozen=True, slots=True)
class PlannedHook:
    """A rule of ours through which one family's packets enter our chains."""

    family: Family
    table: str
    hook: str
    rule: PlannedRule


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """A set of one family; `of` is the set that it comes from, `elements` None where packets write.

    A set that lowering made by itself comes from none: its `of` is empty and it has a `summary`.
    """

    name: str
    of: str
    type: str
    options: tuple[str, ...]
    elements: tuple[str, ...] | None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A whole lowered plan."""

    chains: tuple[PlannedChain, ...]
    hooks: tuple[PlannedHook, ...]
    sets: tuple[PlannedSet, ...]


def planned(plan: LoweredPlan) -> Planned:
    """Return the common form of a lowered plan, in its order."""
    match plan:
        case XPlan():
            return _of_iptables(plan)
        case NftPlan():
            return _of_nftables(plan)
        case _:
            assert_never(plan)


def _of_iptables(plan: XPlan) -> Planned:
    return Planned(
        tuple(
            PlannedChain(
                table.family,
                table.name,
                chain.name,
                chain.name,
                tuple(_rule(rule.comment) for rule in chain.rules),
            )
            for table in plan.tables
            for chain in table.chains
        ),
        tuple(
            PlannedHook(table.family, table.name, jump.hook, _rule(jump.rule.comment))
            for table in plan.tables
            for jump in table.jumps
        ),
        tuple(_ipset(item) for item in plan.sets),
    )


def _of_nftables(plan: NftPlan) -> Planned:
    bases = [chain for chain in plan.chains if chain.base is not None]
    return Planned(
        tuple(_nft_chains(plan)),
        tuple(
            PlannedHook(family, TABLE, chain.name, rule)
            for chain in bases
            for rule in (_rule(each.comment) for each in chain.rules)
            for family in hook_families(rule.id)
        ),
        tuple(_nft_set(item) for item in plan.sets),
    )


def _nft_chains(plan: NftPlan) -> Iterator[PlannedChain]:
    for chain in plan.chains:
        if chain.base is None:
            yield from _nft_chain(chain.name, tuple(_rule(rule.comment) for rule in chain.rules))
    for texts in plan.texts:
        searches = tuple(
            replace(_rule(rule.comment), search=search_words(rule.pattern, rule.offset))
            for rule in texts.rules
        )
        yield from _nft_chain(texts.name, searches)


def _nft_chain(name: str, rules: tuple[PlannedRule, ...]) -> Iterator[PlannedChain]:
    place = split_nft_chain(name)
    if place is not None:
        chain, family = place
        yield PlannedChain(family, TABLE, chain, chain.removesuffix("_text"), rules)


def _rule(comment: str) -> PlannedRule:
    parts = split_comment(comment)
    if parts is None:
        raise AssertionError(f"a lowered rule without our mark: {comment!r}")
    return PlannedRule(*parts)


def _ipset(item: XSet) -> PlannedSet:
    elements = item.elements if item.static else None
    return PlannedSet(item.name, item.of, item.type, item.options, elements)


def _nft_set(item: NftSet) -> PlannedSet:
    options: tuple[str, ...] = ()
    if item.size is not None:
        options += ("maxelem", str(item.size))
    if item.timeout is not None:
        options += ("timeout", str(item.timeout))
    elements = item.elements if item.static else None
    return PlannedSet(item.name, item.of, item.type, options, elements, item.summary)
