"""What `verify` says of a comparison: missing, extra, moved, changed; in packet order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.compare.bypass import ways_past
from sipfw.compare.compare import compare, differs, hook_of, place_of, searches_else
from sipfw.lower.naming import base_id
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.compare.compare import ChainPair, Comparison, Place
    from sipfw.compare.expected import Expectation, ExpectedJump, ExpectedPolicy, ExpectedRule
    from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
    from sipfw.compare.sets import SetPair


class DriftKind(StrEnum):
    """How the live firewall differs."""

    MISSING = "missing"
    EXTRA = "extra"
    MOVED = "moved"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. `origin` is the policy value behind it, empty for foreign things."""

    kind: DriftKind
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

# How `detail` begins where a rule stands twice, and where it is somebody else's.
TWICE = "stands twice"
NOT_OURS = "not made by sipfw"
PASSED = "a rule before it lets packets pass: "

# The rule that leads to where connections are counted, and those to where streams are judged.
_COUNTED = "connect.tcp"
_STREAMS = frozenset({"stream.tcp", "stream.encrypted"})
_MEDIA = "media.guard"
# What an older record does not hold.
_OLD_LINE = "-p tcp"


def drift(expectation: Expectation, live: Live) -> list[Drift]:
    """Return every difference in rules, chains, jumps and sets, in packet order."""
    return drift_in(compare(expectation, live))


def drift_in(found: Comparison) -> list[Drift]:
    """Say a comparison in the words of `verify`."""
    return [
        *_asleep(found),
        *_chains(found),
        *_jumps(found),
        *_policies(found),
        *_sets(found),
    ]


def _asleep(found: Comparison) -> Iterator[Drift]:
    if found.asleep:
        yield Drift(DriftKind.CHANGED, "table", "inet sipfw", "dormant: no packet reaches sipfw")


def _place(place: Place) -> str:
    family, table, name = place
    return f"{_NAMES[family]} {table} {name}"


def _chains(found: Comparison) -> Iterator[Drift]:
    for pair in found.chains:
        place = _place(place_of(pair.wanted))
        if pair.found is None:
            yield Drift(DriftKind.MISSING, "chain", place, origin=pair.wanted.rules[0].origin)
            continue
        yield from _rules(pair, place)
        for _ in pair.namesakes:
            yield Drift(DriftKind.EXTRA, "chain", place, "one of the same name")
    for chain in found.more_chains:
        yield from _extra_chain(chain, _place(place_of(chain)))
    for name in found.strangers:
        yield Drift(DriftKind.EXTRA, "chain", f"inet sipfw {name}")


def _extra_chain(found: LiveChain, place: str) -> Iterator[Drift]:
    """Name a chain of ours that should not be, or the rules of ours in somebody else's chain."""
    ours = [rule for rule in found.rules if rule.rule_id is not None]
    if ours and len(ours) == len(found.rules):
        yield Drift(DriftKind.EXTRA, "chain", place)
        return
    for rule in ours:
        yield Drift(DriftKind.EXTRA, "rule", f"{place} {rule.rule_id}", rule.line)


def _rules(chain: ChainPair, place: str) -> Iterator[Drift]:
    for rule in chain.foreign:
        yield Drift(DriftKind.EXTRA, "rule", place, rule.line)
    for pair in chain.rules:
        real = pair.real
        if real is None:
            yield _rule_drift(DriftKind.MISSING, pair.wanted, place)
            continue
        if differs(pair.wanted, real):
            yield _rule_drift(DriftKind.CHANGED, pair.wanted, place, _seen(pair.wanted, real))
        for twin in pair.twins:
            yield _rule_drift(DriftKind.EXTRA, pair.wanted, place, f"{TWICE}: {twin.line}")
    unknown = {rule.rule_id: rule.line for rule in reversed(chain.unknown)}
    for rule_id in dict.fromkeys(rule.rule_id for rule in chain.unknown):
        yield Drift(DriftKind.EXTRA, "rule", f"{place} {rule_id}", unknown[rule_id])
    wanted = {pair.wanted.id: pair.wanted for pair in chain.rules}
    for moved in chain.moved:
        yield _rule_drift(DriftKind.MOVED, wanted[moved], place)


def _rule_drift(kind: DriftKind, rule: ExpectedRule, place: str, detail: str = "") -> Drift:
    return Drift(kind, "rule", f"{place} {rule.id}", detail, rule.origin)


def _seen(expected: ExpectedRule, found: LiveRule) -> str:
    if searches_else(expected, found):
        return f"searches {found.search}, not {expected.search}"
    return found.line


def _jumps(found: Comparison) -> Iterator[Drift]:
    for pair in found.jumps:
        place = _place(hook_of(pair.wanted))
        real = pair.real
        if real is None:
            reason = (
                "its chain is hooked otherwise"
                if pair.hooked_otherwise
                else "no packet reaches sipfw here"
            )
            yield Drift(DriftKind.MISSING, "jump", place, reason)
        else:
            yield from _jump(pair.wanted, real, place, found.expected)
        for jump in pair.here:
            if jump is not real:
                yield Drift(DriftKind.EXTRA, "jump", place, jump.rule.line)
    for jump in found.more_jumps:
        yield Drift(DriftKind.EXTRA, "jump", _place(hook_of(jump)), jump.rule.line)
    for jump in found.strays:
        detail = f"{NOT_OURS}, so it stays: {jump.rule.line}"
        yield Drift(DriftKind.EXTRA, "jump", _place(hook_of(jump)), detail)


def _jump(
    wanted: ExpectedJump, found: LiveJump, place: str, expectation: Expectation
) -> Iterator[Drift]:
    if differs(wanted.rule, found.rule):
        yield Drift(DriftKind.CHANGED, "jump", place, found.rule.line)
    for line in dict.fromkeys(_ways(wanted, found, expectation)):
        yield Drift(DriftKind.MOVED, "jump", place, f"{PASSED}{line}")


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


def _policies(found: Comparison) -> Iterator[Drift]:
    for pair in found.policies:
        wanted = pair.wanted
        if pair.differs and _matters(wanted, found.expected):
            place = _place((wanted.family, wanted.table, wanted.hook))
            detail = f"policy {pair.found}, which was {wanted.policy} at the apply"
            yield Drift(DriftKind.CHANGED, "chain", place, detail)


def _matters(wanted: ExpectedPolicy, expectation: Expectation) -> bool:
    """Tell whether another policy changes what gets in.

    In table raw it would judge what sipfw lets through. In table filter a host that was shut may
    be open now, unless our own host part drops the rest; shutting it is what ufw does.
    """
    if wanted.table != "filter":
        return True
    return wanted.policy != "ACCEPT" and not _shuts(expectation, wanted.family)


def _sets(found: Comparison) -> Iterator[Drift]:
    for pair in found.sets:
        wanted = pair.wanted
        if pair.found is None:
            yield Drift(DriftKind.MISSING, "set", wanted.name, wanted.summary, wanted.origin)
        else:
            yield from _set(pair, pair.found)
    for item in found.more_sets:
        yield Drift(DriftKind.EXTRA, "set", item.name)


def _set(pair: SetPair, found: LiveSetState) -> Iterator[Drift]:
    wanted = pair.wanted

    def changed(detail: str) -> Drift:
        return Drift(DriftKind.CHANGED, "set", wanted.name, detail, wanted.origin)

    if pair.other_type:
        yield changed(f"type {found.type}, not {wanted.type}")
    for word in pair.header:
        now, then = ("absent" if value is None else value for value in (word.found, word.wanted))
        yield changed(f"{word.name} {now}, not {then}")
    for kind, elements in (
        (DriftKind.MISSING, pair.elements.missing),
        (DriftKind.EXTRA, pair.elements.extra),
    ):
        for element in elements:
            yield Drift(kind, "set element", f"{wanted.name} {element}", origin=wanted.origin)
