"""Compares what should be live with what is: missing, extra, moved, changed; by id, in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from sipfw.lower.xtables import Family
from sipfw.verify.order import kept_in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.backends.interface import Live, LiveChain, LiveJump, LiveRule, LiveSetState
    from sipfw.verify.expectation import (
        Expectation,
        ExpectedChain,
        ExpectedJump,
        ExpectedRule,
        ExpectedSet,
    )


class Kind(StrEnum):
    """How the live firewall differs."""

    MISSING = "missing"
    EXTRA = "extra"
    MOVED = "moved"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. `origin` is the policy value behind it, empty for foreign things."""

    kind: Kind
    what: str
    where: str
    detail: str = ""
    origin: str = ""

    def __str__(self) -> str:
        text = f"{self.what} {self.where}: {self.kind}"
        if self.detail:
            text += f", {self.detail}"
        return f"{text} ({self.origin})" if self.origin else text


_NAMES = {Family.IP: "IPv4", Family.IP6: "IPv6"}

# The kernel may grow hashsize by itself, and newer ipset prints two fields of its own.
_SET_OPTIONS = frozenset({"family", "maxelem", "timeout", "counters"})


def drift(expectation: Expectation, live: Live) -> list[Drift]:
    """Return every difference in rules, chains, jumps and sets, in packet order."""
    return [
        *_asleep(live),
        *_chains(expectation, live),
        *_jumps(expectation, live),
        *_sets(expectation, live),
    ]


def _asleep(live: Live) -> Iterator[Drift]:
    if live.dormant:
        yield Drift(Kind.CHANGED, "table", "inet sipfw", "dormant: no packet reaches sipfw")


def _place(family: Family, table: str, name: str) -> str:
    return f"{_NAMES[family]} {table} {name}"


def _chains(expectation: Expectation, live: Live) -> Iterator[Drift]:
    found = {(item.family, item.table, item.name): item for item in live.chains}
    wanted = {(item.family, item.table, item.name): item for item in expectation.chains}
    for key, chain in wanted.items():
        if key not in found:
            yield Drift(Kind.MISSING, "chain", _place(*key), origin=chain.rules[0].origin)
        else:
            yield from _rules(chain, found[key])
    for key, extra in found.items():
        if key not in wanted and any(rule.rule_id is not None for rule in extra.rules):
            yield Drift(Kind.EXTRA, "chain", _place(*key))


def _rules(wanted: ExpectedChain, found: LiveChain) -> Iterator[Drift]:
    place = _place(wanted.family, wanted.table, wanted.name)
    live_by_id: dict[str, list[LiveRule]] = {}
    for rule in found.rules:
        if rule.rule_id is None:
            yield Drift(Kind.EXTRA, "rule", place, rule.line)
        else:
            live_by_id.setdefault(rule.rule_id, []).append(rule)
    for expected in wanted.rules:
        matches = live_by_id.get(expected.id, [])
        if not matches:
            yield _rule_drift(Kind.MISSING, expected, place)
        elif _differs(expected, matches[0]):
            yield _rule_drift(Kind.CHANGED, expected, place, matches[0].line)
        for extra in matches[1:]:
            yield _rule_drift(Kind.EXTRA, expected, place, f"stands twice: {extra.line}")
    known = {expected.id for expected in wanted.rules}
    for rule_id, rules in live_by_id.items():
        if rule_id not in known:
            yield Drift(Kind.EXTRA, "rule", f"{place} {rule_id}", rules[0].line)
    yield from _order(wanted, found, place)


def _rule_drift(kind: Kind, rule: ExpectedRule, place: str, detail: str = "") -> Drift:
    return Drift(kind, "rule", f"{place} {rule.id}", detail, rule.origin)


def _differs(expected: ExpectedRule, found: LiveRule) -> bool:
    if expected.digest != found.digest:
        return True
    return expected.line is not None and expected.line != found.line


def _order(wanted: ExpectedChain, found: LiveChain, place: str) -> Iterator[Drift]:
    """Name the rules that stand elsewhere, not all those that shifted because of them."""
    live_ids = [rule.rule_id for rule in found.rules if rule.rule_id is not None]
    unique = {rule_id for rule_id, count in Counter(live_ids).items() if count == 1}
    present = [rule for rule in wanted.rules if rule.id in unique]
    rank = {rule.id: index for index, rule in enumerate(present)}
    order = [rank[rule_id] for rule_id in live_ids if rule_id in rank]
    stays = kept_in_order(order)
    for index in order:
        if index not in stays:
            yield _rule_drift(Kind.MOVED, present[index], place)


def _jumps(expectation: Expectation, live: Live) -> Iterator[Drift]:
    for wanted in expectation.jumps:
        place = _place(wanted.family, wanted.table, wanted.hook)
        here = [
            jump
            for jump in live.jumps
            if (jump.family, jump.table, jump.hook) == (wanted.family, wanted.table, wanted.hook)
        ]
        ours = [jump for jump in here if jump.rule.rule_id == wanted.rule.id]
        if not ours:
            yield Drift(Kind.MISSING, "jump", place, "no packet reaches sipfw here")
        else:
            yield from _jump(wanted, ours[0], place)
        for jump in here:
            # By identity: a twin that has counted as much is equal.
            if not ours or jump is not ours[0]:
                yield Drift(Kind.EXTRA, "jump", place, jump.rule.line)
    hooks = {(item.family, item.table, item.hook) for item in expectation.jumps}
    for jump in live.jumps:
        if (jump.family, jump.table, jump.hook) not in hooks:
            place = _place(jump.family, jump.table, jump.hook)
            yield Drift(Kind.EXTRA, "jump", place, jump.rule.line)


def _jump(wanted: ExpectedJump, found: LiveJump, place: str) -> Iterator[Drift]:
    if _differs(wanted.rule, found.rule):
        yield Drift(Kind.CHANGED, "jump", place, found.rule.line)
    for line in found.before:
        if _takes_packets(line):
            yield Drift(Kind.MOVED, "jump", place, f"a rule before it lets packets pass: {line}")


def _takes_packets(line: str) -> bool:
    """Tell whether a rule before our jump could let SIP go past it; drops and chains may stand.

    The line is that of iptables-save, or the JSON of nft, which starts with a bracket.
    """
    if line.startswith("["):
        return any(f'{{"{verdict}":null}}' in line for verdict in ("accept", "return"))
    words = line.split()
    accepts = any(
        flag in {"-j", "-g"} and target in {"ACCEPT", "RETURN"} for flag, target in pairwise(words)
    )
    return accepts and " -i lo " not in line.replace("! -i lo ", "")


def _sets(expectation: Expectation, live: Live) -> Iterator[Drift]:
    found = {item.name: item for item in live.sets}
    for wanted in expectation.sets:
        if wanted.name not in found:
            yield Drift(Kind.MISSING, "set", wanted.name, wanted.summary)
        else:
            yield from _set(wanted, found[wanted.name])
    known = {item.name for item in expectation.sets}
    for name in found:
        if name not in known:
            yield Drift(Kind.EXTRA, "set", name)


def _set(wanted: ExpectedSet, found: LiveSetState) -> Iterator[Drift]:
    if found.type != wanted.type:
        yield Drift(Kind.CHANGED, "set", wanted.name, f"type {found.type}, not {wanted.type}")
    expected, actual = _options(wanted.options), _options(found.header)
    for name in sorted(_SET_OPTIONS):
        if expected.get(name) != actual.get(name):
            detail = f"{name} {actual.get(name, 'absent')}, not {expected.get(name, 'absent')}"
            yield Drift(Kind.CHANGED, "set", wanted.name, detail)
    if wanted.elements is None or found.elements is None:
        return
    for element in sorted(set(wanted.elements) - found.elements):
        yield Drift(Kind.MISSING, "set element", f"{wanted.name} {element}")
    for element in sorted(found.elements - set(wanted.elements)):
        yield Drift(Kind.EXTRA, "set element", f"{wanted.name} {element}")


def _options(words: tuple[str, ...]) -> dict[str, str]:
    """Read `family inet maxelem 65536 timeout 60 counters`; a flag's value is empty."""
    options = {}
    for index, word in enumerate(words):
        if word == "counters":
            options[word] = ""
        elif word in _SET_OPTIONS:
            options[word] = words[index + 1]
    return options
