"""What an apply would change: the wanted firewall against the live one, and nothing foreign.

A set that the packet path fills is compared by its header alone, and counters never.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compare.changes import (
    Action,
    ChainChange,
    JumpChange,
    Plan,
    RuleChange,
    SetChange,
    Settings,
    SysctlChange,
)
from sipfw.compare.compare import compare, edited, hook_of, place_of
from sipfw.compare.drift import DriftKind, drift_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sipfw.compare.compare import ChainPair, Comparison, Place
    from sipfw.compare.expected import (
        Expectation,
        ExpectedChain,
        ExpectedJump,
        ExpectedRule,
        ExpectedSet,
        ExpectedSysctl,
    )
    from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
    from sipfw.compare.sets import SetPair
    from sipfw.ruleset.rule import Family

# `verify` looks at the prefix lengths of a set as well.
_SAID = frozenset({"family", "maxelem", "timeout", "counters"})
_UNKNOWN = "a rule of sipfw that is on no record"
_UNKNOWN_SET = "a set of sipfw that is on no record"
_NOT_OURS = "not made by sipfw, inside a chain of sipfw"


def make_plan(
    wanted: Expectation,
    live: Live,
    settings: Settings,
    *,
    before: Expectation,
    set_origins: Mapping[str, str],
) -> Plan:
    """Compare.

    `before` is the record of the last apply: it explains what goes, and how the kernel listed what
    stays. `set_origins` leads from a set of the ruleset to its policy line, by name, and by summary
    for an older record, which has no names.
    """
    meant = _with_recorded_lines(wanted, before)
    found = compare(meant, live)
    return Plan(
        tuple(_rules(found, before)),
        tuple(_jumps(found, before)),
        tuple(_chains(found, before)),
        tuple(_sets(found, before, set_origins)),
        tuple(_sysctls(meant.sysctls, settings, before)),
        tuple(
            SysctlChange(item.name, settings.actual[item.name], item.value, item.origin)
            for item in meant.sysctls
            if item.name in settings.fixed and settings.actual[item.name] != item.value
        ),
        fresh=not (live.chains or live.jumps or live.sets),
        asleep=found.asleep,
        passed=tuple(
            str(item)
            for item in drift_in(found)
            if (item.kind, item.what) == (DriftKind.MOVED, "jump")
        ),
    )


def _with_recorded_lines(wanted: Expectation, before: Expectation) -> Expectation:
    """Take over how the kernel listed each rule that is to stay as it was applied."""
    lines: dict[tuple[Family, str, str, str, str], str | None] = {}
    for chain in before.chains:
        for rule in chain.rules:
            lines[chain.family, chain.table, chain.name, rule.id, rule.digest] = rule.line
    for jump in before.jumps:
        lines[jump.family, jump.table, jump.hook, jump.rule.id, jump.rule.digest] = jump.rule.line

    def known(place: tuple[Family, str, str], rule: ExpectedRule) -> ExpectedRule:
        return replace(rule, line=lines.get((*place, rule.id, rule.digest)))

    return replace(
        wanted,
        chains=tuple(
            replace(item, rules=tuple(known(place_of(item), rule) for rule in item.rules))
            for item in wanted.chains
        ),
        jumps=tuple(replace(item, rule=known(hook_of(item), item.rule)) for item in wanted.jumps),
    )


def _is_ours(chain: LiveChain) -> bool:
    return any(rule.rule_id is not None for rule in chain.rules)


def _more_chains(found: Comparison) -> dict[Place, LiveChain]:
    """Return chains of ours that nobody wants, one of each name."""
    return {place_of(item): item for item in found.more_chains if _is_ours(item)}


def _rules(found: Comparison, before: Expectation) -> Iterator[RuleChange]:
    recorded = {place_of(item): item for item in before.chains}
    for pair in found.chains:
        yield from _chain_rules(pair, recorded.get(place_of(pair.wanted), pair.wanted))
    for place, gone in _more_chains(found).items():
        yield from _leaving(gone, gone.rules, recorded.get(place))


def _chain_rules(chain: ChainPair, recorded: ExpectedChain) -> Iterator[RuleChange]:
    wanted, found = chain.wanted, chain.found
    if found is not None and _is_ours(found):
        stay = {id(pair.first) for pair in chain.rules}
        yield from _leaving(found, (r for r in found.rules if id(r) not in stay), recorded)
    for pair in chain.rules:
        rule, there = pair.wanted, pair.first
        if there is None:
            yield _rule(Action.ADD, wanted, rule)
        elif rule.digest != there.digest:
            yield _rule(Action.CHANGE, wanted, rule)
        elif edited(rule, there):
            yield _rule(Action.CHANGE, wanted, rule, _edited(there))
        elif rule.id in chain.shifted:
            yield _rule(Action.MOVE, wanted, rule)


def _edited(rule: LiveRule) -> str:
    return f"edited since the apply: {rule.line if rule.search is None else rule.search}"


def _rule(action: Action, chain: ExpectedChain, rule: ExpectedRule, detail: str = "") -> RuleChange:
    return RuleChange(
        action,
        chain.family,
        chain.table,
        chain.name,
        chain.layer,
        rule.id,
        rule.summary,
        rule.origin,
        detail,
    )


def _leaving(
    chain: LiveChain, rules: Iterable[LiveRule], recorded: ExpectedChain | None
) -> Iterator[RuleChange]:
    """Describe rules that go, by the record of the last apply where it knows them."""
    known = {} if recorded is None else {rule.id: rule for rule in recorded.rules}
    layer = "" if recorded is None else recorded.layer
    for rule in rules:
        place = (Action.REMOVE, chain.family, chain.table, chain.name, layer)
        if rule.rule_id is None:
            yield RuleChange(*place, "", _NOT_OURS, "", rule.line)
            continue
        old = known.get(rule.rule_id)
        if old is None:
            yield RuleChange(*place, rule.rule_id, _UNKNOWN, "", rule.line)
        else:
            yield RuleChange(*place, rule.rule_id, old.summary, old.origin)


def _jumps(comparison: Comparison, before: Expectation) -> Iterator[JumpChange]:
    for pair in comparison.jumps:
        jump, rule = pair.wanted, pair.wanted.rule
        if not pair.found:
            yield _jump(Action.ADD, jump, rule)
            continue
        first = pair.found[0].rule
        if rule.digest != first.digest:
            yield _jump(Action.CHANGE, jump, rule)
        elif edited(rule, first):
            yield _jump(Action.CHANGE, jump, rule, _edited(first))
        for _ in pair.found[1:]:
            yield _jump(Action.REMOVE, jump, rule, "it stands twice")
    recorded = {(hook_of(item), item.rule.id): item.rule for item in before.jumps}
    for item in _together(comparison.unmatched):
        rule_id = item.rule.rule_id
        known = None if rule_id is None else recorded.get((hook_of(item), rule_id))
        if known is not None:
            yield _jump(Action.REMOVE, item, known)
            continue
        summary = _NOT_OURS if rule_id is None else _UNKNOWN
        yield JumpChange(Action.REMOVE, *hook_of(item), summary, "", item.rule.line)


def _together(jumps: Iterable[LiveJump]) -> Iterator[LiveJump]:
    """Put rules of one id and place beside each other."""
    found: dict[tuple[Place, str | None], list[LiveJump]] = {}
    for item in jumps:
        found.setdefault((hook_of(item), item.rule.rule_id), []).append(item)
    for items in found.values():
        yield from items


def _jump(
    action: Action, place: ExpectedJump | LiveJump, rule: ExpectedRule, detail: str = ""
) -> JumpChange:
    return JumpChange(
        action, place.family, place.table, place.hook, rule.summary, rule.origin, detail
    )


def _chains(found: Comparison, before: Expectation) -> Iterator[ChainChange]:
    layers = {place_of(item): item.layer for item in before.chains}
    for pair in found.chains:
        if pair.found is None:
            chain = pair.wanted
            yield ChainChange(Action.ADD, *place_of(chain), chain.layer, len(chain.rules))
    for place, gone in _more_chains(found).items():
        yield ChainChange(Action.REMOVE, *place, layers.get(place, ""), len(gone.rules))


def _sets(
    found: Comparison, before: Expectation, origins: Mapping[str, str]
) -> Iterator[SetChange]:
    for pair in found.sets:
        item, origin = pair.wanted, _set_origin(pair.wanted, origins)
        if pair.found is None:
            members = tuple(sorted(item.elements or ()))
            yield SetChange(Action.ADD, item.name, item.summary, origin, added=members)
            continue
        header = tuple(_header(pair, pair.found))
        added, removed = pair.elements.missing, pair.elements.extra
        if header or added or removed:
            yield SetChange(Action.CHANGE, item.name, item.summary, origin, header, added, removed)
    recorded = {item.name: item for item in before.sets}
    for gone in found.more_sets:
        old = recorded.get(gone.name)
        if old is None:
            yield SetChange(Action.REMOVE, gone.name, _UNKNOWN_SET, "")
        else:
            origin = _set_origin(old, origins)
            yield SetChange(Action.REMOVE, gone.name, old.summary, origin)


def _set_origin(item: ExpectedSet, origins: Mapping[str, str]) -> str:
    return origins.get(item.of or item.summary, "")


def _header(pair: SetPair, found: LiveSetState) -> Iterator[str]:
    if pair.other_type:
        yield f"type {found.type} -> {pair.wanted.type}"
    for word in pair.header:
        if word.name in _SAID:
            yield f"{word.name} {_value(word.found)} -> {_value(word.wanted)}"


def _value(word: str | None) -> str:
    return "none" if word is None else word or "yes"


def _sysctls(
    wanted: Iterable[ExpectedSysctl], settings: Settings, before: Expectation
) -> Iterator[SysctlChange]:
    for item in wanted:
        actual = settings.actual[item.name]
        if actual != item.value and item.name not in settings.fixed:
            yield SysctlChange(item.name, actual, item.value, item.origin)
    origins = {item.name: item.origin for item in before.sysctls}
    for name, value in settings.returned.items():
        actual = settings.actual[name]
        if actual not in (None, value) and name not in settings.fixed:
            yield SysctlChange(name, actual, value, origins.get(name, ""))
