"""What an apply would change: the wanted firewall against the live one, and nothing foreign.

A set that the packet path fills is compared by its header alone, and counters never.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from sipfw.verify.changes import (
    Action,
    ChainChange,
    JumpChange,
    Plan,
    RuleChange,
    SetChange,
    Settings,
    SysctlChange,
)
from sipfw.verify.drift import searches_else
from sipfw.verify.order import kept_in_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sipfw.backends.interface import Live, LiveChain, LiveJump, LiveRule, LiveSetState
    from sipfw.ruleset.rule import Family
    from sipfw.verify.expectation import (
        Expectation,
        ExpectedChain,
        ExpectedJump,
        ExpectedRule,
        ExpectedSet,
        ExpectedSysctl,
    )

# What the text forms of both backends say of a set that changes what it does; the kernel may grow
# hashsize by itself.
_VALUED = frozenset({"family", "maxelem", "timeout"})
_FLAGS = frozenset({"counters"})
_UNKNOWN = "a rule of sipfw that is on no record"
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
    stays. `set_origins` leads from a set's summary, which lowering keeps, to its policy line.
    """
    meant = _with_recorded_lines(wanted, before)
    return Plan(
        tuple(_rules(meant, live, before)),
        tuple(_jumps(meant, live, before)),
        tuple(_chains(meant, live, before)),
        tuple(_sets(meant, live, before, set_origins)),
        tuple(_sysctls(meant.sysctls, settings, before)),
        tuple(
            SysctlChange(item.name, settings.actual[item.name], item.value, item.origin)
            for item in meant.sysctls
            if item.name in settings.fixed and settings.actual[item.name] != item.value
        ),
        fresh=not (live.chains or live.jumps or live.sets),
        asleep=live.dormant,
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
            replace(item, rules=tuple(known(_place(item), rule) for rule in item.rules))
            for item in wanted.chains
        ),
        jumps=tuple(
            replace(item, rule=known((item.family, item.table, item.hook), item.rule))
            for item in wanted.jumps
        ),
    )


def _place(chain: ExpectedChain | LiveChain) -> tuple[Family, str, str]:
    return chain.family, chain.table, chain.name


def _is_ours(chain: LiveChain) -> bool:
    return any(rule.rule_id is not None for rule in chain.rules)


def _rules(wanted: Expectation, live: Live, before: Expectation) -> Iterator[RuleChange]:
    found = {_place(item): item for item in live.chains if _is_ours(item)}
    recorded = {_place(item): item for item in before.chains}
    for chain in wanted.chains:
        place = _place(chain)
        there = found.pop(place, None)
        yield from _chain_rules(chain, there, recorded.get(place, chain))
    for place, gone in found.items():
        yield from _leaving(gone, gone.rules, recorded.get(place))


def _chain_rules(
    wanted: ExpectedChain, found: LiveChain | None, recorded: ExpectedChain
) -> Iterator[RuleChange]:
    by_id: dict[str, LiveRule] = {}
    leaving: list[LiveRule] = []
    ids = {rule.id for rule in wanted.rules}
    for rule in () if found is None else found.rules:
        if rule.rule_id is None or rule.rule_id not in ids or rule.rule_id in by_id:
            leaving.append(rule)
        else:
            by_id[rule.rule_id] = rule
    if found is not None:
        yield from _leaving(found, leaving, recorded)
    moved = _moved(wanted, list(by_id))
    for expected in wanted.rules:
        match = by_id.get(expected.id)
        if match is None:
            yield _rule(Action.ADD, wanted, expected)
        elif expected.digest != match.digest:
            yield _rule(Action.CHANGE, wanted, expected)
        elif expected.line not in (None, match.line) or searches_else(expected, match):
            yield _rule(Action.CHANGE, wanted, expected, _edited(match))
        elif expected.id in moved:
            yield _rule(Action.MOVE, wanted, expected)


def _edited(rule: LiveRule) -> str:
    return f"edited since the apply: {rule.line if rule.search is None else rule.search}"


def _moved(wanted: ExpectedChain, live_ids: list[str]) -> set[str]:
    """Name the rules that stand elsewhere, not all those that shift because of them."""
    rank = {rule.id: index for index, rule in enumerate(wanted.rules)}
    stays = kept_in_order([rank[rule_id] for rule_id in live_ids])
    return {rule_id for rule_id in live_ids if rank[rule_id] not in stays}


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


def _jumps(wanted: Expectation, live: Live, before: Expectation) -> Iterator[JumpChange]:
    found: dict[tuple[Family, str, str, str | None], list[LiveJump]] = {}
    for item in live.jumps:
        key = (item.family, item.table, item.hook, item.rule.rule_id)
        found.setdefault(key, []).append(item)
    for jump in wanted.jumps:
        rule = jump.rule
        here = found.pop((jump.family, jump.table, jump.hook, rule.id), [])
        if not here:
            yield _jump(Action.ADD, jump, rule)
        elif rule.digest != here[0].rule.digest:
            yield _jump(Action.CHANGE, jump, rule)
        elif rule.line not in (None, here[0].rule.line):
            yield _jump(Action.CHANGE, jump, rule, _edited(here[0].rule))
        for _ in here[1:]:
            yield _jump(Action.REMOVE, jump, rule, "it stands twice")
    recorded = {(i.family, i.table, i.hook, i.rule.id): i.rule for i in before.jumps}
    for (family, table, hook, rule_id), leaving in found.items():
        known = None if rule_id is None else recorded.get((family, table, hook, rule_id))
        for item in leaving:
            if known is not None:
                yield _jump(Action.REMOVE, item, known)
                continue
            summary = _NOT_OURS if rule_id is None else _UNKNOWN
            yield JumpChange(Action.REMOVE, family, table, hook, summary, "", item.rule.line)


def _jump(
    action: Action, place: ExpectedJump | LiveJump, rule: ExpectedRule, detail: str = ""
) -> JumpChange:
    return JumpChange(
        action, place.family, place.table, place.hook, rule.summary, rule.origin, detail
    )


def _chains(wanted: Expectation, live: Live, before: Expectation) -> Iterator[ChainChange]:
    found = {_place(item): item for item in live.chains}
    layers = {_place(item): item.layer for item in before.chains}
    for chain in wanted.chains:
        place = _place(chain)
        if found.pop(place, None) is None:
            yield ChainChange(Action.ADD, *place, chain.layer, len(chain.rules))
    for place, gone in found.items():
        if _is_ours(gone):
            yield ChainChange(Action.REMOVE, *place, layers.get(place, ""), len(gone.rules))


def _sets(
    wanted: Expectation, live: Live, before: Expectation, origins: Mapping[str, str]
) -> Iterator[SetChange]:
    found = {item.name: item for item in live.sets_beside(wanted.sets)}
    for item in wanted.sets:
        there = found.pop(item.name, None)
        origin = origins.get(item.summary, "")
        if there is None:
            members = tuple(sorted(item.elements or ()))
            yield SetChange(Action.ADD, item.name, item.summary, origin, added=members)
            continue
        header = tuple(_header(item, there))
        added, removed = _members(item, there)
        if header or added or removed:
            yield SetChange(Action.CHANGE, item.name, item.summary, origin, header, added, removed)
    summaries = {item.name: item.summary for item in before.sets}
    for name in found:
        summary = summaries.get(name, "a set of sipfw that is on no record")
        yield SetChange(Action.REMOVE, name, summary, origins.get(summary, ""))


def _header(wanted: ExpectedSet, found: LiveSetState) -> Iterator[str]:
    if wanted.type != found.type:
        yield f"type {found.type} -> {wanted.type}"
    new, old = _options(wanted.options), _options(found.header)
    for name in sorted(_VALUED | _FLAGS):
        if new.get(name) != old.get(name):
            yield f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"


def _options(words: tuple[str, ...]) -> dict[str, str]:
    """Read `family inet maxelem 65536 timeout 60 counters`."""
    options = {}
    for word, value in pairwise((*words, "")):
        if word in _VALUED:
            options[word] = value
        elif word in _FLAGS:
            options[word] = "yes"
    return options


def _members(wanted: ExpectedSet, found: LiveSetState) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if wanted.elements is None or found.elements is None:
        return (), ()
    meant = frozenset(wanted.elements)
    return tuple(sorted(meant - found.elements)), tuple(sorted(found.elements - meant))


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
