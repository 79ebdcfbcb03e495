"""What should be live in nftables, in the same form as for iptables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.backends.interface import search_words
from sipfw.lower.naming import base_id, split_comment, split_nft_chain
from sipfw.lower.nftables_hooks import hook_families
from sipfw.ruleset.doors import doors_of
from sipfw.verify.expectation import (
    Expectation,
    ExpectedChain,
    ExpectedJump,
    ExpectedRule,
    ExpectedSet,
    ExpectedSysctl,
    action_word,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.backends.interface import Live
    from sipfw.lower.nftables_plan import NftPlan, NftSet
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family, Rule


def expect_nft(ruleset: Ruleset, plan: NftPlan) -> Expectation:
    """Describe what a plan will look like when it is live."""
    rules = {rule.id: rule for chain in ruleset.chains for rule in chain.rules}
    layers = {chain.name: chain.layer.value for chain in ruleset.chains}
    comments = [
        *((chain.name, [rule.comment for rule in chain.rules]) for chain in plan.chains),
        *((chain.name, [rule.comment for rule in chain.rules]) for chain in plan.texts),
    ]
    searches = {
        (chain.name, rule.comment): search_words(rule.pattern, rule.offset)
        for chain in plan.texts
        for rule in chain.rules
    }
    bases = {chain.name for chain in plan.chains if chain.base is not None}
    origins = {item.summary: str(item.origin) for item in ruleset.sets}
    return Expectation(
        chains=tuple(_chains(comments, searches, bases, rules, layers)),
        jumps=tuple(
            ExpectedJump(family, "sipfw", name, rule)
            for name, found in comments
            if name in bases
            for rule in (_rule(comment, rules) for comment in found)
            for family in hook_families(rule.id)
        ),
        sets=tuple(_set(item, origins.get(item.summary, "")) for item in plan.sets),
        sysctls=tuple(
            ExpectedSysctl(item.name, item.value, str(item.origin)) for item in ruleset.sysctls
        ),
        doors=doors_of(ruleset),
    )


def with_jump_lines(expectation: Expectation, live: Live) -> Expectation:
    """Remember how nft lists the rules of the base chains."""
    lines = {
        (jump.family, jump.hook, jump.rule.rule_id, jump.rule.digest): jump.rule.line
        for jump in live.jumps
    }
    jumps = [
        replace(jump, rule=replace(jump.rule, line=lines.get(_key(jump))))
        for jump in expectation.jumps
    ]
    return replace(expectation, jumps=tuple(jumps))


def _key(jump: ExpectedJump) -> tuple[Family, str, str, str]:
    return jump.family, jump.hook, jump.rule.id, jump.rule.digest


def _chains(
    comments: list[tuple[str, list[str]]],
    searches: dict[tuple[str, str], str],
    bases: set[str],
    rules: dict[str, Rule],
    layers: dict[str, str],
) -> Iterator[ExpectedChain]:
    for name, found in comments:
        place = None if name in bases else split_nft_chain(name)
        if place is None:
            continue
        chain, family = place
        layer = layers[chain.removesuffix("_text")]
        texts = tuple(
            replace(_rule(comment, rules), search=searches.get((name, comment)))
            for comment in found
        )
        yield ExpectedChain(family, "sipfw", chain, layer, texts)


def _rule(comment: str, rules: dict[str, Rule]) -> ExpectedRule:
    parts = split_comment(comment)
    if parts is None:
        raise AssertionError(f"a lowered rule without our mark: {comment!r}")
    rule_id, digest = parts
    rule = rules.get(base_id(rule_id))
    if rule is None:
        return ExpectedRule(rule_id, digest, "way into sipfw's chains", "built-in: hook")
    return ExpectedRule(
        rule_id, digest, rule.summary, str(rule.origin), action=action_word(rule.action)
    )


def _set(item: NftSet, origin: str) -> ExpectedSet:
    options: tuple[str, ...] = ()
    if item.size is not None:
        options += ("maxelem", str(item.size))
    if item.timeout is not None:
        options += ("timeout", str(item.timeout))
    elements = item.elements if item.static else None
    return ExpectedSet(item.name, item.type, options, item.summary, elements, origin)
