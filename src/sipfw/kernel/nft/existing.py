"""What the live table holds already, and what of it a plan takes over: elements and counters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sipfw.kernel.nft.searches import read_searches
from sipfw.kernel.nft.tool import live_from_json
from sipfw.kernel.nft.way_back import parse_listing
from sipfw.kernel.xtables.carried_counters import Counters, carried
from sipfw.lower.naming import search_words
from sipfw.render.nft import Existing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sipfw.compare.live import LiveRule
    from sipfw.kernel.nft.tool import NftListing, NftObject
    from sipfw.lower.nftables_plan import NftPlan, NftSet, NftTextChain

_TEXT_CHAIN = "_text_"


def existing(
    plan: NftPlan,
    objects: Sequence[NftObject],
    text: str,
    elements: Callable[[str], list[NftObject]],
    leave: Collection[str] = (),
) -> Existing:
    """Compare the plan with nft's listings of the table, as JSON and as text, without elements.

    `elements` lists those of one set, for sets that have to be made anew. Chains and sets in
    `leave` are somebody else's, and no part of what there is.
    """
    live = without(live_from_json(objects), leave)
    texts = {chain.name for chain in plan.texts}
    bases = {chain.name: chain.base for chain in plan.chains} | dict.fromkeys(texts)
    sets = {item.name: item for item in plan.sets}
    found = {
        item["set"]["name"]: item["set"]
        for item in objects
        if "set" in item and item["set"]["name"] in live.sets
    }
    flags = _flags(text)
    kept = {
        name
        for name, item in found.items()
        if name in sets and _same_definition(sets[name], item, flags.get(name, frozenset()))
    }
    return Existing(
        # A text chain is never flushed by text: nft could not fill it again.
        chains=tuple(name for name in live.chains if name not in texts),
        # The kernel moves no chain to another hook or priority: EOPNOTSUPP.
        obsolete_chains=tuple(
            chain.name
            for chain in live.chains.values()
            if chain.name not in bases or bases[chain.name] != chain.base
        ),
        kept_sets=frozenset(kept),
        replaced_sets=tuple(name for name in found if name not in kept),
        carried={
            name: _elements(sets[name], elements(name))
            for name in found
            if name in sets and name not in kept and _may_keep_elements(sets[name])
        },
        counters=_counters(plan, live),
    )


def without(listing: NftListing, names: Collection[str]) -> NftListing:
    """Return a listing as if it did not hold the chains and sets of these names."""
    return replace(
        listing,
        chains={name: item for name, item in listing.chains.items() if name not in names},
        sets={name: item for name, item in listing.sets.items() if name not in names},
    )


def same_texts(chain: NftTextChain, live: NftListing | None) -> bool:
    """Tell whether the live chain holds the plan's searches, in their order.

    A text may have been changed under its comment, and nft does not show texts.
    """
    found = None if live is None else live.chains.get(chain.name)
    if found is None:
        return False
    wanted = [(rule.comment, search_words(rule.pattern, rule.offset)) for rule in chain.rules]
    searches = read_searches(chain.name)
    return [(comment(rule), text) for rule, text in zip(found.rules, searches, strict=False)] == (
        wanted
    ) and len(searches) == len(found.rules)


def text_counters(chain: NftTextChain, live: NftListing | None) -> list[Counters]:
    """Return the counters of the searches, which outlive a change of the list."""
    if live is None:
        return [(0, 0) for _ in chain.rules]
    before = [
        rule
        for other in live.chains.values()
        if _TEXT_CHAIN in other.name and _stem(other.name) == _stem(chain.name)
        for rule in other.rules
    ]
    return carried([rule.comment for rule in chain.rules], _counted(before))


def comment(rule: LiveRule) -> str:
    """Return the comment that a live rule of ours carries."""
    return f"sipfw:{rule.rule_id}#{rule.digest}"


def _stem(name: str) -> str:
    """Name a text chain without the digest of its content."""
    return name.partition(_TEXT_CHAIN)[0]


def _flags(text: str) -> dict[str, frozenset[str]]:
    """Return the flags of each set: the JSON of nft 1.0.6 leaves out `dynamic`."""
    return {
        block.name: frozenset(
            flag
            for line in block.lines
            if line.startswith("\t\tflags ")
            for flag in line.removeprefix("\t\tflags ").split(",")
        )
        for block in parse_listing(text)
        if block.kind == "set"
    }


def _same_definition(wanted: NftSet, item: NftObject, flags: frozenset[str]) -> bool:
    """Tell whether the elements may stay.

    The kernel ignores a new timeout, and refuses other flags and statements: EEXIST.
    """
    # nft 1.0.6 leaves `timeout` out of the text of a set that has a default one.
    flags = flags.union(item.get("flags", ()))
    kind = item["type"] if isinstance(item["type"], str) else " . ".join(item["type"])
    found = kind, flags, item.get("timeout"), item.get("size"), item.get("stmt", [])
    return found == (wanted.type, frozenset(wanted.flags), wanted.timeout, wanted.size, [])


def _may_keep_elements(wanted: NftSet) -> bool:
    # A metered element that is made without its limit counts as over the limit.
    return wanted.timeout is not None and not wanted.metered


def _elements(wanted: NftSet, listed: Sequence[NftObject]) -> tuple[str, ...]:
    """Return the learned elements of a set that must be made anew, with their remaining time."""
    elements = [each["elem"] for each in listed if "elem" in each]
    return tuple(
        f"{_key(each['val'])} expires {min(int(each['expires']), wanted.timeout or 0)}s"
        for each in elements[: wanted.size]
        if each.get("expires")
    )


def _key(value: Any) -> str:
    """Write an element's key as nft reads it; that of an endpoint has several parts."""
    parts = value["concat"] if isinstance(value, dict) else [value]
    return " . ".join(str(part) for part in parts)


def _counters(plan: NftPlan, live: NftListing) -> dict[tuple[str, str], Counters]:
    """Return the counters that the plan's rules start with, by chain and comment without digest."""
    found = {}
    for chain in plan.chains:
        before = live.chains.get(chain.name)
        if before is not None:
            comments = [rule.comment for rule in chain.rules]
            values = carried(comments, _counted(before.rules))
            for text, counters in zip(comments, values, strict=True):
                found[chain.name, text.partition("#")[0]] = counters
    return found


def _counted(rules: Sequence[LiveRule]) -> list[tuple[str, Counters]]:
    return [(comment(rule), (rule.packets, rule.bytes)) for rule in rules]
