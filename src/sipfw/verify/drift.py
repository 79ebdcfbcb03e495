"""Compares what should be live with what is: missing, extra, moved, changed; by id, in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.lower.naming import base_id
from sipfw.lower.xtables import Family
from sipfw.ruleset.model import Layer
from sipfw.verify.bypass import ways_past
from sipfw.verify.order import kept_in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.backends.interface import Live, LiveChain, LiveJump, LiveRule, LiveSetState
    from sipfw.verify.expectation import (
        Expectation,
        ExpectedChain,
        ExpectedJump,
        ExpectedPolicy,
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
_SET_OPTIONS = frozenset({"family", "maxelem", "timeout", "netmask", "bitmask", "counters"})

# The rule that leads to where connections are counted, and those to where streams are judged.
_COUNTED = "connect.tcp"
_STREAMS = frozenset({"stream.tcp", "stream.encrypted"})
_MEDIA = "media.guard"
# What an older record does not hold.
_OLD_LINE = "-p tcp"


def drift(expectation: Expectation, live: Live) -> list[Drift]:
    """Return every difference in rules, chains, jumps and sets, in packet order."""
    return [
        *_asleep(live),
        *_chains(expectation, live),
        *_jumps(expectation, live),
        *_policies(expectation, live),
        *_sets(expectation, live),
    ]


def _asleep(live: Live) -> Iterator[Drift]:
    if live.dormant:
        yield Drift(Kind.CHANGED, "table", "inet sipfw", "dormant: no packet reaches sipfw")


def _place(family: Family, table: str, name: str) -> str:
    return f"{_NAMES[family]} {table} {name}"


def _chains(expectation: Expectation, live: Live) -> Iterator[Drift]:
    # A chain of text searches may have a namesake: the digest in its name is no part of the place.
    found: dict[tuple[Family, str, str], list[LiveChain]] = {}
    for item in live.chains:
        found.setdefault((item.family, item.table, item.name), []).append(item)
    wanted = {(item.family, item.table, item.name): item for item in expectation.chains}
    for key, chain in wanted.items():
        namesakes = found.get(key, [])
        if not namesakes:
            yield Drift(Kind.MISSING, "chain", _place(*key), origin=chain.rules[0].origin)
            continue
        real = max(namesakes, key=lambda item: _agreeing(chain, item))
        yield from _rules(chain, real)
        for item in namesakes:
            if item is not real:
                yield Drift(Kind.EXTRA, "chain", _place(*key), "one of the same name")
    for key, extra in found.items():
        if key not in wanted:
            for item in extra:
                yield from _extra_chain(item, _place(*key))
    hooks = {jump.hook for jump in expectation.jumps}
    for name in live.strangers:
        if name not in hooks:
            yield Drift(Kind.EXTRA, "chain", f"inet sipfw {name}")


def _agreeing(wanted: ExpectedChain, found: LiveChain) -> int:
    """Count the rules that both have."""
    marks = {(rule.id, rule.digest) for rule in wanted.rules}
    return len(marks & {(rule.rule_id, rule.digest) for rule in found.rules})


def _extra_chain(found: LiveChain, place: str) -> Iterator[Drift]:
    """Name a chain of ours that should not be, or the rules of ours in somebody else's chain."""
    ours = [rule for rule in found.rules if rule.rule_id is not None]
    if ours and len(ours) == len(found.rules):
        yield Drift(Kind.EXTRA, "chain", place)
        return
    for rule in ours:
        yield Drift(Kind.EXTRA, "rule", f"{place} {rule.rule_id}", rule.line)


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
            continue
        real = _the_real_one(expected, matches)
        if _differs(expected, real):
            yield _rule_drift(Kind.CHANGED, expected, place, _seen(expected, real))
        for extra in matches:
            # By identity: a twin that has counted as much is equal.
            if extra is not real:
                yield _rule_drift(Kind.EXTRA, expected, place, f"stands twice: {extra.line}")
    known = {expected.id for expected in wanted.rules}
    for rule_id, rules in live_by_id.items():
        if rule_id not in known:
            yield Drift(Kind.EXTRA, "rule", f"{place} {rule_id}", rules[0].line)
    yield from _order(wanted, found, place)


def _rule_drift(kind: Kind, rule: ExpectedRule, place: str, detail: str = "") -> Drift:
    return Drift(kind, "rule", f"{place} {rule.id}", detail, rule.origin)


def _the_real_one(expected: ExpectedRule, found: list[LiveRule]) -> LiveRule:
    """Return the rule that is as it should be, where one with its comment was put beside it."""
    return next((rule for rule in found if not _differs(expected, rule)), found[0])


def _differs(expected: ExpectedRule, found: LiveRule) -> bool:
    if expected.digest != found.digest:
        return True
    if expected.line is not None and expected.line != found.line:
        return True
    return searches_else(expected, found)


def searches_else(expected: ExpectedRule, found: LiveRule) -> bool:
    """Tell whether a rule looks for another text than it should."""
    return None not in {expected.search, found.search} and expected.search != found.search


def _seen(expected: ExpectedRule, found: LiveRule) -> str:
    if searches_else(expected, found):
        return f"searches {found.search}, not {expected.search}"
    return found.line


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
        real = next((jump for jump in ours if not _differs(wanted.rule, jump.rule)), None)
        real = real or next(iter(ours), None)
        if real is None:
            yield Drift(Kind.MISSING, "jump", place, _why_missing(wanted, live))
        else:
            yield from _jump(wanted, real, place, expectation)
        for jump in here:
            if jump is not real:
                yield Drift(Kind.EXTRA, "jump", place, jump.rule.line)
    hooks = {(item.family, item.table, item.hook) for item in expectation.jumps}
    stray = [item for item in live.jumps if (item.family, item.table, item.hook) not in hooks]
    for jump in stray:
        place = _place(jump.family, jump.table, jump.hook)
        yield Drift(Kind.EXTRA, "jump", place, jump.rule.line)
    for jump in live.strays:
        place = _place(jump.family, jump.table, jump.hook)
        yield Drift(Kind.EXTRA, "jump", place, f"not made by sipfw, so it stays: {jump.rule.line}")


def _why_missing(wanted: ExpectedJump, live: Live) -> str:
    """Say what that means; a chain of nftables that is hooked otherwise says so in its name."""
    moved = any(
        jump.family == wanted.family
        and jump.rule.rule_id == wanted.rule.id
        and jump.hook.startswith(f"{wanted.hook} (")
        for jump in live.jumps
    )
    return "its chain is hooked otherwise" if moved else "no packet reaches sipfw here"


def _jump(
    wanted: ExpectedJump, found: LiveJump, place: str, expectation: Expectation
) -> Iterator[Drift]:
    if _differs(wanted.rule, found.rule):
        yield Drift(Kind.CHANGED, "jump", place, found.rule.line)
    for line in dict.fromkeys(_ways(wanted, found, expectation)):
        yield Drift(Kind.MOVED, "jump", place, f"a rule before it lets packets pass: {line}")


def _ways(wanted: ExpectedJump, found: LiveJump, expectation: Expectation) -> Iterator[str]:
    if wanted.table != "filter" or _shuts(expectation, wanted.family):
        yield from ways_past(found)
    if wanted.table == "filter":
        # SIP over UDP is judged in table raw; here connections are counted, and what is said on
        # those that stand is judged, as is RTP.
        for rule in _in_filter(expectation, wanted.family):
            if base_id(rule.id) in {_COUNTED, _MEDIA}:
                yield from ways_past(found, rule.line or _OLD_LINE)
            if base_id(rule.id) in _STREAMS:
                yield from ways_past(found, rule.line or _OLD_LINE, of_open=True)


def _in_filter(
    expectation: Expectation, family: Family, layer: str | None = None
) -> Iterator[ExpectedRule]:
    for chain in expectation.chains:
        fits = layer is None or chain.layer == layer
        if fits and (chain.family, chain.table) == (family, "filter"):
            yield from chain.rules


def _shuts(expectation: Expectation, family: Family) -> bool:
    """Tell whether our part of table filter drops the rest; an older record does not say."""
    host = _in_filter(expectation, family, Layer.HOST)
    return any(rule.action in {"drop", ""} for rule in host)


def _policies(expectation: Expectation, live: Live) -> Iterator[Drift]:
    found = {(item.family, item.table, item.hook): item.policy for item in live.policies}
    for wanted in expectation.policies:
        key = (wanted.family, wanted.table, wanted.hook)
        now = found.get(key, wanted.policy)
        if now != wanted.policy and _matters(wanted, expectation):
            detail = f"policy {now}, which was {wanted.policy} at the apply"
            yield Drift(Kind.CHANGED, "chain", _place(*key), detail)


def _matters(wanted: ExpectedPolicy, expectation: Expectation) -> bool:
    """Tell whether another policy changes what gets in.

    In table raw it would judge what sipfw lets through. In table filter a host that was shut may
    be open now, unless our own host part drops the rest; shutting it is what ufw does.
    """
    if wanted.table != "filter":
        return True
    return wanted.policy != "ACCEPT" and not _shuts(expectation, wanted.family)


def _sets(expectation: Expectation, live: Live) -> Iterator[Drift]:
    found = {item.name: item for item in live.sets_beside(expectation.sets)}
    for wanted in expectation.sets:
        if wanted.name not in found:
            yield Drift(Kind.MISSING, "set", wanted.name, wanted.summary, wanted.origin)
        else:
            yield from _set(wanted, found[wanted.name])
    known = {item.name for item in expectation.sets}
    for name in found:
        if name not in known:
            yield Drift(Kind.EXTRA, "set", name)


def _set(wanted: ExpectedSet, found: LiveSetState) -> Iterator[Drift]:
    def changed(detail: str) -> Drift:
        return Drift(Kind.CHANGED, "set", wanted.name, detail, wanted.origin)

    if found.type != wanted.type:
        yield changed(f"type {found.type}, not {wanted.type}")
    expected, actual = _options(wanted.options), _options(found.header)
    for name in sorted(_SET_OPTIONS):
        if expected.get(name) != actual.get(name):
            yield changed(
                f"{name} {actual.get(name, 'absent')}, not {expected.get(name, 'absent')}"
            )
    if wanted.elements is None or found.elements is None:
        return
    meant = set(wanted.elements)
    for kind, elements in (
        (Kind.MISSING, meant - found.elements),
        (Kind.EXTRA, found.elements - meant),
    ):
        for element in sorted(elements):
            yield Drift(kind, "set element", f"{wanted.name} {element}", origin=wanted.origin)


def _options(words: tuple[str, ...]) -> dict[str, str]:
    """Read `family inet maxelem 65536 timeout 60 counters`; a flag's value is empty."""
    options = {}
    for index, word in enumerate(words):
        if word == "counters":
            options[word] = ""
        elif word in _SET_OPTIONS:
            options[word] = words[index + 1]
    return options
