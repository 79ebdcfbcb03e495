"""The way of a packet through one hook's chains of somebody else, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.monitor.doctor.stricter.conditions import Fit, fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sipfw.compare.foreign import ForeignRule
    from sipfw.lower.xtables import Family
    from sipfw.monitor.doctor.stricter.conditions import Grant

# The kernel refuses more jumps in a row than 16 (NFT_JUMP_STACK_SIZE); xtables has room for as many
# as there are chains, but nobody can follow those.
_DEEPEST = 64
_NO_STEP = frozenset({Verdict.NONE, Verdict.SEND, Verdict.REDIRECT})


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of a way; `place` is that in the base chain, counted from 0, None elsewhere."""

    rule: ForeignRule
    place: int | None = None


def steps(rules: Iterable[ForeignRule], *, numbered: bool) -> Iterator[Step]:
    """Yield the rules that end a packet's way or lead it on; others only count, mark or send."""
    for place, listed in enumerate(rules):
        for rule in listed.each:
            if rule.verdict not in _NO_STEP:
                yield Step(rule, place if numbered else None)


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
    chains: Mapping[str, tuple[Step, ...]]
    tool: tuple[str, ...]
    xtables: bool

    def jump_place(self) -> int | None:
        """Return the place of our jump in the base chain, counted from 0."""
        steps = self.chains[self.base]
        return next((item.place for item in steps if item.rule.ours), None)


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
        for step in self.way.chains.get(name, ()):
            rule = step.rule
            if rule.ours and not self.ours:
                continue
            fits = fit(rule.asks, self.grant)
            if fits is Fit.NO or (fits is Fit.MAYBE and not self.guess):
                continue
            here, falls = self._follow(step, depth)
            ends += here
            if falls and rule.verdict in {Verdict.RETURN, Verdict.GOTO}:
                if fits is Fit.YES:
                    return ends, True
                may_return = True
            elif not falls and fits is Fit.YES:
                return ends, may_return
        return ends, True

    def _follow(self, step: Step, depth: int) -> tuple[list[End], bool]:
        """Return what follows where a rule fits."""
        rule = step.rule
        if rule.verdict is Verdict.RETURN:
            return [], True
        if rule.leads_to is not None:
            ends, falls = self.chain(rule.leads_to, depth + 1)
        else:
            # What a program that is asked says, nobody knows; such hosts let pass what it lets.
            ends, falls = [End(not rule.denies, rule, None)], False
        if step.place is not None:
            ends = [End(item.accepted, item.rule, step.place) for item in ends]
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
