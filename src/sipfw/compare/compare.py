"""The one comparison of what should be live with what is: pairs, and what has no partner.

It says nothing in words and leaves nothing out. `verify`, `diff` and whoever reads back are views
of it, each with its own words. A rule's partner has its id and stands in the chain of its place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sipfw.compare.sets import SetPair, pair_sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sipfw.compare.expected import (
        Expectation,
        ExpectedChain,
        ExpectedJump,
        ExpectedPolicy,
        ExpectedRule,
    )
    from sipfw.compare.live import Live, LiveChain, LiveJump, LiveRule, LiveSetState
    from sipfw.ruleset.rule import Family

Place: TypeAlias = "tuple[Family, str, str]"


@dataclass(frozen=True, slots=True)
class RulePair:
    """A wanted rule and the live ones with its id, in their order: none, one, or twins."""

    wanted: ExpectedRule
    found: tuple[LiveRule, ...]

    @property
    def real(self) -> LiveRule | None:
        """The one that is as it should be, where one with its comment was put beside it."""
        return next((rule for rule in self.found if not differs(self.wanted, rule)), self.first)

    @property
    def first(self) -> LiveRule | None:
        """The one that packets meet first."""
        return self.found[0] if self.found else None

    @property
    def twins(self) -> tuple[LiveRule, ...]:
        """All but the real one; by identity, as a twin that has counted as much is equal."""
        if len(self.found) < 2:
            return ()
        real = self.real
        return tuple(rule for rule in self.found if rule is not real)


@dataclass(frozen=True, slots=True)
class ChainPair:
    """A wanted chain and the live one, None where there is none.

    `namesakes` are others of its name, `rules` stand in the wanted order. `foreign` rules have no
    mark, `unknown` ones have one that is not wanted here. `moved` are ids that stand once and
    elsewhere, in their live order; `shifted` are those whose first rule does.
    """

    wanted: ExpectedChain
    found: LiveChain | None
    namesakes: tuple[LiveChain, ...] = ()
    rules: tuple[RulePair, ...] = ()
    foreign: tuple[LiveRule, ...] = ()
    unknown: tuple[LiveRule, ...] = ()
    moved: tuple[str, ...] = ()
    shifted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class JumpPair:
    """A wanted jump and all rules of ours that stand where it should.

    `hooked_otherwise` tells that it stands in a base chain of that name with another hook.
    """

    wanted: ExpectedJump
    here: tuple[LiveJump, ...]
    hooked_otherwise: bool

    @property
    def found(self) -> tuple[LiveJump, ...]:
        """Those with its id, in their order."""
        return tuple(item for item in self.here if item.rule.rule_id == self.wanted.rule.id)

    @property
    def real(self) -> LiveJump | None:
        """The one that is as it should be, else the first."""
        wanted, found = self.wanted.rule, self.found
        first = found[0] if found else None
        return next((item for item in found if not differs(wanted, item.rule)), first)


@dataclass(frozen=True, slots=True)
class PolicyPair:
    """The policy of a built-in chain at the apply, and the one that it has now."""

    wanted: ExpectedPolicy
    found: str

    @property
    def differs(self) -> bool:
        """Tell whether somebody has changed it."""
        return self.found != self.wanted.policy


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is live beside what should be.

    `more_chains` and `more_sets` are wanted by nobody, `more_jumps` stand in hooks where none of
    ours should; `unmatched` are all jumps that no wanted one has the id and the place of. `strays`
    are rules of others that lead into our chains, `strangers` chains in our own table that no plan
    makes.
    """

    expected: Expectation
    live: Live
    chains: tuple[ChainPair, ...]
    more_chains: tuple[LiveChain, ...]
    strangers: tuple[str, ...]
    jumps: tuple[JumpPair, ...]
    more_jumps: tuple[LiveJump, ...]
    unmatched: tuple[LiveJump, ...]
    strays: tuple[LiveJump, ...]
    policies: tuple[PolicyPair, ...]
    sets: tuple[SetPair, ...]
    more_sets: tuple[LiveSetState, ...]
    asleep: bool


def compare(expected: Expectation, live: Live) -> Comparison:
    """Compare. Raises BackendError where sets are expected and could not be read."""
    chains, more_chains = _chains(expected, live)
    hooks = {hook_of(item) for item in expected.jumps}
    marks = {(hook_of(item), item.rule.id) for item in expected.jumps}
    policies = {(item.family, item.table, item.hook): item.policy for item in live.policies}
    sets, more_sets = pair_sets(expected.sets, live.sets_beside(expected.sets))
    base_chains = {item.hook for item in expected.jumps}
    return Comparison(
        expected,
        live,
        chains,
        more_chains,
        tuple(name for name in live.strangers if name not in base_chains),
        tuple(_jump(item, live.jumps) for item in expected.jumps),
        tuple(item for item in live.jumps if hook_of(item) not in hooks),
        tuple(item for item in live.jumps if (hook_of(item), item.rule.rule_id) not in marks),
        live.strays,
        tuple(
            PolicyPair(item, policies.get((item.family, item.table, item.hook), item.policy))
            for item in expected.policies
        ),
        sets,
        more_sets,
        live.dormant,
    )


def place_of(chain: ExpectedChain | LiveChain) -> Place:
    """Return what a chain is found by."""
    return chain.family, chain.table, chain.name


def hook_of(jump: ExpectedJump | LiveJump) -> Place:
    """Return where a jump stands."""
    return jump.family, jump.table, jump.hook


def differs(expected: ExpectedRule, found: LiveRule) -> bool:
    """Tell whether a rule is another than it should be; what is on no record is none."""
    if expected.digest != found.digest:
        return True
    return edited(expected, found)


def edited(expected: ExpectedRule, found: LiveRule) -> bool:
    """Tell whether somebody has changed it under its comment."""
    return expected.line not in (None, found.line) or searches_else(expected, found)


def searches_else(expected: ExpectedRule, found: LiveRule) -> bool:
    """Tell whether a rule looks for another text than it should."""
    return None not in {expected.search, found.search} and expected.search != found.search


def not_as_wanted(wanted: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """Name what is not there or holds something else, in the wanted order.

    For a read back right after a change, which compares the marks of the rules of each chain. The
    values are whatever must be equal.
    """
    return [name for name, content in wanted.items() if found.get(name) != content]


def differing(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Name what came, went or changed, sorted: for a way back, where nothing may be left over."""
    more = [name for name in now if name not in before]
    return sorted([*not_as_wanted(before, now), *more])


def marks_of(expected: Expectation) -> Counter[str]:
    """Count the marks `<id>#<digest>` that all rules together should have."""
    rules = [rule for chain in expected.chains for rule in chain.rules]
    rules += [jump.rule for jump in expected.jumps]
    return Counter(f"{rule.id}#{rule.digest}" for rule in rules)


def without_counters(live: Live) -> object:
    """Return what is ours in the kernel, but for what packets change."""
    chains = [(*place_of(item), [rule.line for rule in item.rules]) for item in live.chains]
    jumps = [(*hook_of(item), item.rule.line) for item in live.jumps]
    sets = [(item.name, item.type, item.elements) for item in live.sets]
    return chains, jumps, sets


def _chains(
    expected: Expectation, live: Live
) -> tuple[tuple[ChainPair, ...], tuple[LiveChain, ...]]:
    # A chain of text searches may have a namesake: the digest in its name is no part of the place.
    found: dict[Place, list[LiveChain]] = {}
    for item in live.chains:
        found.setdefault(place_of(item), []).append(item)
    wanted = {place_of(item): item for item in expected.chains}
    pairs = tuple(_chain(chain, found.get(place, ())) for place, chain in wanted.items())
    more = (item for place, items in found.items() if place not in wanted for item in items)
    return pairs, tuple(more)


def _chain(wanted: ExpectedChain, found: Sequence[LiveChain]) -> ChainPair:
    if not found:
        return ChainPair(wanted, None, rules=tuple(RulePair(rule, ()) for rule in wanted.rules))
    real = max(found, key=lambda item: _agreeing(wanted, item))
    by_id: dict[str, list[LiveRule]] = {rule.id: [] for rule in wanted.rules}
    unknown = []
    for rule in real.rules:
        if rule.rule_id is None:
            continue
        if rule.rule_id in by_id:
            by_id[rule.rule_id].append(rule)
        else:
            unknown.append(rule)
    ids = [rule.rule_id for rule in real.rules if rule.rule_id in by_id]
    counts = Counter(ids)
    moved = tuple(_elsewhere(wanted, (each for each, count in counts.items() if count == 1)))
    has_twins = len(counts) < len(ids)
    return ChainPair(
        wanted,
        real,
        tuple(item for item in found if item is not real),
        tuple(RulePair(rule, tuple(by_id[rule.id])) for rule in wanted.rules),
        tuple(rule for rule in real.rules if rule.rule_id is None),
        tuple(unknown),
        moved,
        frozenset(_elsewhere(wanted, counts) if has_twins else moved),
    )


def _agreeing(wanted: ExpectedChain, found: LiveChain) -> int:
    """Count the rules that both have."""
    marks = {(rule.id, rule.digest) for rule in wanted.rules}
    return len(marks & {(rule.rule_id, rule.digest) for rule in found.rules})


def _elsewhere(wanted: ExpectedChain, live_ids: Iterable[str | None]) -> Iterator[str]:
    """Name the rules that stand elsewhere, not all those that shifted because of them."""
    ids = [rule_id for rule_id in live_ids if rule_id is not None]
    rank = {rule.id: index for index, rule in enumerate(wanted.rules)}
    stays = kept_in_order([rank[rule_id] for rule_id in ids])
    return (rule_id for rule_id in ids if rank[rule_id] not in stays)


def _jump(wanted: ExpectedJump, live: Iterable[LiveJump]) -> JumpPair:
    here = tuple(item for item in live if hook_of(item) == hook_of(wanted))
    # A base chain of nftables that is hooked otherwise says so behind its name.
    otherwise = any(
        item.family == wanted.family
        and item.rule.rule_id == wanted.rule.id
        and item.hook.startswith(f"{wanted.hook} (")
        for item in live
    )
    return JumpPair(wanted, here, otherwise)


def kept_in_order(order: list[int]) -> set[int]:
    """Return the members of a longest increasing subsequence of distinct numbers.

    Patience sorting: a chain of a host without ipset may hold thousands of rules.
    """
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for value in order:
        place = bisect_left(tails, value)
        before[value] = tails[place - 1] if place else None
        tails[place : place + 1] = [value]
    kept: set[int] = set()
    at = tails[-1] if tails else None
    while at is not None:
        kept.add(at)
        at = before[at]
    return kept
