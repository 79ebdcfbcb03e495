"""Checks on a finished ruleset: our own bugs, found before a kernel sees them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sipfw.ruleset.match import CountAbove, InSet, PayloadContains, VolumeAbove
from sipfw.ruleset.rule import (
    Accept,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Goto,
    Jump,
    Log,
    Reset,
    Return,
    Rule,
    UpdateSet,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.ruleset.model import Chain, Ruleset


def lint(ruleset: Ruleset) -> list[str]:
    """Return every contradiction in a ruleset; an empty list for a sound one."""
    return [
        *_ids(ruleset),
        *_references(ruleset),
        *_done_under_jump(ruleset),
        *_unused(ruleset),
        *_log_prefixes(ruleset),
    ]


def _rules(ruleset: Ruleset) -> Iterator[tuple[Chain, Rule]]:
    for chain in ruleset.chains:
        for rule in chain.rules:
            yield chain, rule


def _ids(ruleset: Ruleset) -> Iterator[str]:
    for rule_id, count in Counter(rule.id for _, rule in _rules(ruleset)).items():
        if count > 1:
            yield f"rule id {rule_id} is used {count} times"
    for chain in ruleset.chains:
        if not chain.rules:
            yield f"chain {chain.name} has no rule that could carry our mark"


def _references(ruleset: Ruleset) -> Iterator[str]:
    chains = {chain.name for chain in ruleset.chains}
    sets = {item.name for item in ruleset.sets}
    for chain, rule in _rules(ruleset):
        if isinstance(rule.action, Jump | Goto):
            if rule.action.chain not in chains:
                yield f"rule {rule.id} names the chain {rule.action.chain}, which is missing"
            elif ruleset.chain(rule.action.chain).priority is not chain.priority:
                yield f"rule {rule.id} leads into a chain of another hook priority"
        if isinstance(rule.action, UpdateSet | AddOnce | DeleteFromSet) and (
            rule.action.set not in sets
        ):
            yield f"rule {rule.id} changes the set {rule.action.set}, which is missing"
        for match in rule.matches:
            if isinstance(match, InSet | CountAbove | VolumeAbove) and match.set not in sets:
                yield f"rule {rule.id} asks the set {match.set}, which is missing"


def _done_under_jump(ruleset: Ruleset) -> Iterator[str]:
    """`Done` is RETURN in iptables: under a jump it would come back to the middle of a chain."""
    under_jump: set[str] = set()
    chains = {chain.name for chain in ruleset.chains}
    waiting = [r.action.chain for _, r in _rules(ruleset) if isinstance(r.action, Jump)]
    while waiting:
        name = waiting.pop()
        if name in under_jump or name not in chains:
            continue
        under_jump.add(name)
        waiting += [
            rule.action.chain for rule in ruleset.chain(name).rules if isinstance(rule.action, Goto)
        ]
    for name in sorted(under_jump):
        for rule in ruleset.chain(name).rules:
            if isinstance(rule.action, Done):
                yield f"rule {rule.id} says done in {name}, which is reached by a jump"


def back_from_text(ruleset: Ruleset) -> Iterator[str]:
    """Name the text searches that lead to where a walk does not end; not in `lint`.

    Rulesets of older versions have such, where they do no harm, and must stay readable.

    nftables enters the searches of a chain by a jump, so what leads on from one and then comes back
    would go on behind them, as if the text were not there.
    """
    chains = {chain.name for chain in ruleset.chains}
    asked = [
        rule
        for _, rule in _rules(ruleset)
        if any(isinstance(match, PayloadContains) for match in rule.matches)
    ]
    for rule in asked:
        if isinstance(rule.action, Goto) and rule.action.chain in chains:
            for name in sorted(_open_ends(ruleset, rule.action.chain)):
                yield f"rule {rule.id} searches a text and comes back through {name}"


def _open_ends(ruleset: Ruleset, start: str) -> set[str]:
    """Return the chains that are entered by goto from `start` and may be left by their end."""
    found: set[str] = set()
    waiting, seen = [start], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        rules = ruleset.chain(name).rules
        waiting += [rule.action.chain for rule in rules if isinstance(rule.action, Goto)]
        last = rules[-1]
        ends = isinstance(last.action, Accept | Done | Drop | Reset | Goto) and not last.matches
        if not ends or any(isinstance(rule.action, Return) for rule in rules):
            found.add(name)
    return found


def _unused(ruleset: Ruleset) -> Iterator[str]:
    reached = {
        rule.action.chain for _, rule in _rules(ruleset) if isinstance(rule.action, Jump | Goto)
    }
    for chain in ruleset.chains:
        if chain.base is None and chain.name not in reached:
            yield f"chain {chain.name} is never reached"


def _log_prefixes(ruleset: Ruleset) -> Iterator[str]:
    """A log line names its rule by the prefix alone."""
    prefixes = Counter(
        rule.action.prefix for _, rule in _rules(ruleset) if isinstance(rule.action, Log)
    )
    for prefix, count in prefixes.items():
        if count > 1:
            yield f"{count} rules log as {prefix!r}"
