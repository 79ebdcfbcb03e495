"""The chains that one hook asks, and where they let a packet end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.monitor.host_path.fit import Fit, doubt, fit

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from sipfw.compare.foreign import ForeignRule
    from sipfw.lower.xtables import Family
    from sipfw.monitor.host_path.fit import Grant, Members
    from sipfw.ruleset.model import Base

# The kernel refuses more jumps in a row than 16 (NFT_JUMP_STACK_SIZE); xtables has room for as many
# as there are chains, but nobody can follow those.
_DEEPEST = 64
_SENDS = frozenset({Verdict.SEND, Verdict.REDIRECT})


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of a way, the rule `number` of `chain`, counted from 0.

    `place` is the number again in the base chain, None elsewhere.
    """

    rule: ForeignRule
    place: int | None = None
    chain: str = ""
    number: int = 0

    @property
    def matters(self) -> bool:
        """Whether it ends a packet's way, leads it on or changes it; others count or mark."""
        rule = self.rule
        changes = rule.untracks or rule.zone or rule.marks or rule.unread
        return rule.verdict is not Verdict.NONE or bool(changes)


class ChainSteps(Mapping[str, "tuple[Step, ...]"]):
    """The chains of a table by name, each read when it is asked for.

    `numbered` are the base chains, `theirs` the chains that are not wholly ours.
    """

    def __init__(
        self,
        chains: Mapping[str, Iterable[ForeignRule]],
        numbered: Container[str],
        theirs: Iterable[str],
    ) -> None:
        self._chains = chains
        self._numbered = numbered
        self._read: dict[str, tuple[Step, ...]] = {}
        self.theirs = tuple(theirs)

    def __getitem__(self, name: str) -> tuple[Step, ...]:
        if name not in self._read:
            rules = self._chains[name]
            self._read[name] = tuple(_steps(rules, name, numbered=name in self._numbered))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._chains)

    def __len__(self) -> int:
        return len(self._chains)


def _steps(rules: Iterable[ForeignRule], chain: str, *, numbered: bool) -> Iterator[Step]:
    """Yield the rules of a chain that matter for a packet."""
    for number, listed in enumerate(rules):
        for rule in listed.each:
            step = Step(rule, number if numbered else None, chain, number)
            if step.matters:
                yield step


NO_CHAINS = ChainSteps({}, (), ())


@dataclass(frozen=True)
class HookChains:
    """What one hook of one table asks: a base chain and the chains that it leads to.

    `where` names the base chain for people. `tool` are the words that write into it, `xtables`
    tells in whose grammar. The hook is asked in the order of `priority`; `kind` is nat for a chain
    that only the first packet of a connection sees. `devices` are those that an ingress hook is
    for. `ours` is the hook of our own that stands here, `members` looks into named sets.
    """

    where: str
    families: frozenset[Family]
    base: str
    drops: bool
    chains: ChainSteps
    tool: tuple[str, ...]
    xtables: bool
    hook: str = "input"
    priority: int = 0
    kind: str = "filter"
    devices: tuple[str, ...] = ()
    ours: Base | None = None
    members: Members | None = field(default=None, compare=False)

    @cached_property
    def foreign(self) -> tuple[Step, ...]:
        """The rules of others, of the base chain and of all that it may lead to."""
        chains = (self.chains[name] for name in self.chains.theirs)
        return tuple(step for chain in chains for step in chain if not step.rule.ours)

    def jump_place(self) -> int | None:
        """Return the place of our jump in the base chain, counted from 0."""
        steps = self.chains.get(self.base, ())
        return next((item.place for item in steps if item.rule.ours), None)

    @cached_property
    def may_drop(self) -> bool:
        """Whether anything of somebody else drops here."""
        return self.drops or any(
            step.rule.denies or step.rule.queues or self.unread(step) for step in self.foreign
        )

    def unread(self, step: Step) -> str:
        """Name what a rule does that nobody here can tell; empty where all is read."""
        rule = step.rule
        if rule.leads_to is not None and rule.leads_to not in self.chains:
            return f"what chain {rule.leads_to} does"
        return rule.unread

    @cached_property
    def changes(self) -> bool:
        """Whether anything of somebody else changes where a packet goes, or its state."""
        return any(
            step.rule.untracks or step.rule.zone or step.rule.verdict in _SENDS
            for step in self.foreign
        )


@dataclass(frozen=True, slots=True)
class End:
    """Where a packet may end: at the rule of `step`, or with None by the policy of the base chain.

    `place` is that of the rule in the base chain that led there. `when` names what nobody can tell,
    and what has to hold for this end.
    """

    accepted: bool
    step: Step | None
    place: int | None
    when: tuple[str, ...] = ()

    @property
    def rule(self) -> ForeignRule | None:
        """The rule."""
        return None if self.step is None else self.step.rule


@dataclass(slots=True)
class _Walk:
    way: HookChains
    grant: Grant
    ours: bool
    guess: bool
    gone: Container[Step] = ()
    known: dict[str, tuple[list[End], bool]] = field(default_factory=dict)
    changed: list[Step] = field(default_factory=list)

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
            if (rule.ours and not self.ours) or (self.gone and step in self.gone):
                continue
            fits = fit(rule.asks, self.grant, self.way.members)
            if fits is Fit.NO or (fits is Fit.MAYBE and not self.guess):
                continue
            here, falls = self._follow(step, depth)
            unread = self.way.unread(step) if self.guess else ""
            if unread:
                here = [End(accepted=False, step=step, place=step.place, when=(unread,)), *here]
            if fits is Fit.MAYBE:
                why = doubt(rule.asks, self.grant, self.way.members)
                here = [replace(item, when=(why, *item.when)) for item in here]
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
        if rule.untracks or rule.zone:
            self.changed.append(step)
        # A return from a base chain, and from one that it goes to, leaves what stands behind.
        leaves = End(not self.way.drops, None, step.place)
        if rule.verdict is Verdict.RETURN and step.place is not None:
            return [leaves], False
        if rule.verdict in {Verdict.RETURN, Verdict.NONE}:
            return [], True
        if rule.leads_to is not None:
            ends, falls = self.chain(rule.leads_to, depth + 1)
            if falls and rule.verdict is Verdict.GOTO and step.place is not None:
                ends, falls = [*ends, leaves], False
        else:
            # What a program that is asked says, nobody knows; such hosts let pass what it lets.
            unheard = rule.queues and self.grant.queues.isdisjoint(rule.queues)
            ends, falls = [End(not (rule.denies or unheard), step, None)], False
        if step.place is not None:
            ends = [replace(item, place=step.place) for item in ends]
        return ends, falls


def ends(way: HookChains, grant: Grant, *, ours: bool = False, guess: bool = False) -> list[End]:
    """Return where a packet of a grant may end.

    Without `guess`, rules of which nobody can tell whether they fit are passed over, and there is
    one end. `ours` walks our own rules too, otherwise they are passed over.
    """
    found, falls = _Walk(way, grant, ours, guess).chain(way.base)
    if falls:
        found = [*found, End(not way.drops, None, None)]
    return found if guess else found[:1]


def default_end(
    way: HookChains, grant: Grant, gone: Container[Step] = ()
) -> tuple[End, list[Step]]:
    """Return the one end without a guess, and the rules on the way that changed the state.

    It is that which would be if the rules of `gone` were not there.
    """
    walk = _Walk(way, grant, ours=False, guess=False, gone=gone)
    found, falls = walk.chain(way.base)
    if falls:
        found = [*found, End(not way.drops, None, None)]
    return found[0], walk.changed
