"""The way of a packet through one hook's chains of somebody else, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.monitor.doctor.stricter.conditions import Fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.lower.xtables import Family
    from sipfw.monitor.doctor.stricter.conditions import Condition, Grant

# The kernel refuses more jumps in a row than 16 (NFT_JUMP_STACK_SIZE); xtables has room for as many
# as there are chains, but nobody can follow those.
_DEEPEST = 64


class ForeignVerdict(StrEnum):
    """What a rule does with what fits."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """One rule as it is listed, with what it asks and does; `ours` has our mark."""

    line: str
    asks: Condition
    verdict: ForeignVerdict
    chain: str = ""
    ours: bool = False
    place: int | None = None


@dataclass(frozen=True, slots=True)
class HookChains:
    """What one hook of one table asks: a base chain and the chains that it leads to.

    `where` names the base chain for people. `tool` are the words that write into it, `xtables`
    tells in whose grammar.
    """

    where: str
    families: frozenset[Family]
    base: str
    drops: bool
    chains: Mapping[str, tuple[ForeignRule, ...]]
    tool: tuple[str, ...]
    xtables: bool

    def jump_place(self) -> int | None:
        """Return the place of our jump in the base chain, counted from 0."""
        rules = self.chains[self.base]
        return next((item.place for item in rules if item.ours), None)


@dataclass(frozen=True, slots=True)
class End:
    """Where a packet may end: at a rule, or with None by the policy of the base chain.

    `place` is that of the rule in the base chain that led there.
    """

    accepted: bool
    rule: ForeignRule | None
    place: int | None


@dataclass(slots=True)
class _Walk:
    way: HookChains
    grant: Grant
    ours: bool
    guess: bool
    known: dict[str, tuple[list[End], bool]] = field(default_factory=dict)

    def chain(self, name: str, depth: int = 0) -> tuple[list[End], bool]:
        """Return how a chain may end, and whether it may be left by its end or a return."""
        if depth > _DEEPEST:
            return [], True
        if name not in self.known:
            # A chain that leads back to itself, which no kernel takes.
            self.known[name] = ([], True)
            self.known[name] = self._rules(name, depth)
        return self.known[name]

    def _rules(self, name: str, depth: int) -> tuple[list[End], bool]:
        ends: list[End] = []
        may_return = False
        for rule in self.way.chains.get(name, ()):
            if rule.verdict is ForeignVerdict.NONE or (rule.ours and not self.ours):
                continue
            fit = rule.asks.fit(self.grant)
            if fit is Fit.NO or (fit is Fit.MAYBE and not self.guess):
                continue
            here, falls = self._follow(rule, depth)
            ends += here
            if falls and rule.verdict in {ForeignVerdict.RETURN, ForeignVerdict.GOTO}:
                if fit is Fit.YES:
                    return ends, True
                may_return = True
            elif not falls and fit is Fit.YES:
                return ends, may_return
        return ends, True

    def _follow(self, rule: ForeignRule, depth: int) -> tuple[list[End], bool]:
        """Return what follows where a rule fits."""
        if rule.verdict is ForeignVerdict.RETURN:
            return [], True
        if rule.verdict in {ForeignVerdict.JUMP, ForeignVerdict.GOTO}:
            ends, falls = self.chain(rule.chain, depth + 1)
        else:
            ends, falls = [End(rule.verdict is ForeignVerdict.ACCEPT, rule, None)], False
        if rule.place is not None:
            ends = [End(item.accepted, item.rule, rule.place) for item in ends]
        return ends, falls


def ends(way: HookChains, grant: Grant, *, ours: bool = False, guess: bool = False) -> list[End]:
    """Return where the first packet of a grant may end.

    Without `guess`, rules of which nobody can tell whether they fit are passed over, and there is
    one end. `ours` walks our own rules too, otherwise they are passed over.
    """
    found, falls = _Walk(way, grant, ours, guess).chain(way.base)
    if falls:
        found = [*found, End(not way.drops, None, None)]
    return found if guess else found[:1]
