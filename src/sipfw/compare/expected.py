"""What should be live: made from a ruleset and its plan, kept as JSON between commands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from sipfw.lower.ipset import windows
from sipfw.lower.naming import base_id
from sipfw.lower.plan import planned
from sipfw.plain_data import NotPlainDataError, from_plain, to_plain
from sipfw.ruleset.doors import doors_of
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import (
    Accept,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Family,
    Goto,
    Jump,
    Log,
    NoTrack,
    Record,
    Reset,
    Return,
    UpdateSet,
)
from sipfw.ruleset.source import Door  # noqa: TC001 - an annotation that is read

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sipfw.compare.live import Live
    from sipfw.lower.plan import LoweredPlan, PlannedRule, PlannedSet
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Action, Rule

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ExpectedRule:
    """One rule; `line` is the kernel's listing right after the apply, where there was one.

    `action` says what it does with a packet, see `action_word`; empty in an older record. `search`
    is what it looks for where the listing does not say that, see `LiveRule`.
    """

    id: str
    digest: str
    summary: str
    origin: str
    line: str | None = None
    action: str = ""
    search: str | None = None


@dataclass(frozen=True, slots=True)
class ExpectedChain:
    """One chain of one family."""

    family: Family
    table: str
    name: str
    layer: str
    rules: tuple[ExpectedRule, ...]


@dataclass(frozen=True, slots=True)
class ExpectedJump:
    """Our one rule in a built-in chain."""

    family: Family
    table: str
    hook: str
    rule: ExpectedRule


@dataclass(frozen=True, slots=True)
class ExpectedSet:
    """One set of one family; `elements` only where the policy decides them.

    `of` names the set of the ruleset that it comes from; an older record does not say.
    """

    name: str
    type: str
    options: tuple[str, ...]
    summary: str
    elements: tuple[str, ...] | None
    origin: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedSysctl:
    """One kernel setting."""

    name: str
    value: int
    origin: str


@dataclass(frozen=True, slots=True)
class ExpectedPolicy:
    """What a built-in chain did right after the apply with packets that no rule had judged.

    It is the host's own; sipfw never sets it.
    """

    family: Family
    table: str
    hook: str
    policy: str


@dataclass(frozen=True, slots=True)
class ExpectedTally:
    """Sets of the ruleset in which packets are noted by source and port before a rule drops them.

    `counts` counts them, `moments` is renewed by each; an entry lasts so many seconds.
    """

    counts: str
    moments: str
    seconds: int
    layer: str
    rule: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """A whole applied firewall, as `verify` compares it.

    `doors` are the ports that it judges, `tallies` where it notes what it drops of trusted peers;
    an older record holds none.
    """

    chains: tuple[ExpectedChain, ...]
    jumps: tuple[ExpectedJump, ...]
    sets: tuple[ExpectedSet, ...]
    sysctls: tuple[ExpectedSysctl, ...]
    policies: tuple[ExpectedPolicy, ...] = ()
    doors: tuple[Door, ...] = ()
    tallies: tuple[ExpectedTally, ...] = ()

    def chain_names(self) -> frozenset[str]:
        """Name the chains that should be live."""
        return frozenset(chain.name for chain in self.chains)

    def static_sets(self) -> frozenset[str]:
        """Name the sets whose content the policy decides."""
        return frozenset(item.name for item in self.sets if item.elements is not None)

    def families(self) -> list[Family]:
        """Return the families that are guarded."""
        return sorted({jump.family for jump in self.jumps})


def expect(ruleset: Ruleset, plan: LoweredPlan) -> Expectation:
    """Describe what a plan will look like when it is live."""
    rules = {rule.id: rule for chain in ruleset.chains for rule in chain.rules}
    layers = {chain.name: chain.layer.value for chain in ruleset.chains}
    form = planned(plan)
    return Expectation(
        chains=tuple(
            ExpectedChain(
                chain.family,
                chain.table,
                chain.name,
                layers[chain.of],
                tuple(_rule(rule, rules) for rule in chain.rules),
            )
            for chain in form.chains
        ),
        jumps=tuple(
            ExpectedJump(hook.family, hook.table, hook.hook, _rule(hook.rule, rules))
            for hook in form.hooks
        ),
        sets=tuple(_sets(ruleset, form.sets)),
        sysctls=tuple(
            ExpectedSysctl(item.name, item.value, str(item.origin)) for item in ruleset.sysctls
        ),
        doors=doors_of(ruleset),
        tallies=tuple(_tallies(ruleset, {item.of for item in form.sets})),
    )


def _tallies(ruleset: Ruleset, loaded: Collection[str]) -> list[ExpectedTally]:
    """Find the chains that note targets and drop; without ipset there are no sets to note in."""
    seconds = {
        item.name: item.timeout or 0
        for item in ruleset.sets
        if item.kind is SetKind.TARGET and item.name in loaded
    }
    found: dict[str, ExpectedTally] = {}
    for chain in ruleset.chains:
        written = [r.action for r in chain.rules if isinstance(r.action, UpdateSet | AddOnce)]
        counts = [item.set for item in written if isinstance(item, AddOnce)]
        moments = [item.set for item in written if isinstance(item, UpdateSet)]
        for pair in zip(counts, moments, strict=False):
            if seconds.keys() >= set(pair):
                last = chain.rules[-1].id
                found.setdefault(
                    pair[0], ExpectedTally(*pair, seconds[pair[0]], chain.layer.value, last)
                )
    return list(found.values())


def _rule(lowered: PlannedRule, rules: dict[str, Rule]) -> ExpectedRule:
    rule = rules.get(base_id(lowered.id))
    if rule is None:
        return ExpectedRule(lowered.id, lowered.digest, "way into sipfw's chains", "built-in: hook")
    return ExpectedRule(
        lowered.id,
        lowered.digest,
        rule.summary,
        str(rule.origin),
        action=action_word(rule.action),
        search=lowered.search,
    )


def action_word(action: Action) -> str:
    """Name an action in one word: `drop`, `pass`, `go`, `return`, `set` or `note`."""
    match action:
        case Drop() | Reset():
            return "drop"
        case Accept() | Done():
            return "pass"
        case Jump() | Goto():
            return "go"
        case Return():
            return "return"
        case UpdateSet() | AddOnce() | DeleteFromSet():
            return "set"
        case Record() | NoTrack() | Log():
            return "note"
        case _:
            assert_never(action)


def _sets(ruleset: Ruleset, sets: Iterable[PlannedSet]) -> Iterator[ExpectedSet]:
    known = {item.name: item for item in [*ruleset.sets, *windows(ruleset)]}
    for item in sets:
        source = known.get(item.of)
        yield ExpectedSet(
            item.name,
            item.type,
            item.options,
            item.summary if source is None else source.summary,
            item.elements,
            "" if source is None else str(source.origin),
            item.of,
        )


def with_lines(expectation: Expectation, live: Live) -> Expectation:
    """Remember how the kernel lists each rule: later a rule edited under its comment shows.

    The policies of built-in chains are remembered with them.
    """
    chains = {(item.family, item.table, item.name): item for item in live.chains}
    filled = []
    for chain in expectation.chains:
        found = chains.get((chain.family, chain.table, chain.name))
        if found is None or len(found.rules) != len(chain.rules):
            filled.append(chain)
            continue
        pairs = zip(chain.rules, found.rules, strict=True)
        filled.append(replace(chain, rules=tuple(replace(r, line=f.line) for r, f in pairs)))
    policies = tuple(
        ExpectedPolicy(item.family, item.table, item.hook, item.policy) for item in live.policies
    )
    return replace(expectation, chains=tuple(filled), policies=policies)


def with_jump_lines(expectation: Expectation, live: Live) -> Expectation:
    """Remember how the kernel lists the rules that lead to our chains."""
    lines = {
        (jump.family, jump.hook, jump.rule.rule_id, jump.rule.digest): jump.rule.line
        for jump in live.jumps
    }
    jumps = [
        replace(jump, rule=replace(jump.rule, line=lines.get(_key(jump))))
        for jump in expectation.jumps
    ]
    return replace(expectation, jumps=tuple(jumps))


def _key(jump: ExpectedJump) -> tuple[Family, str, str, str]:
    return jump.family, jump.hook, jump.rule.id, jump.rule.digest


def without_families(expectation: Expectation, absent: Iterable[Family]) -> Expectation:
    """Leave out families that this kernel does not have."""
    gone = set(absent)
    return replace(
        expectation,
        chains=tuple(item for item in expectation.chains if item.family not in gone),
        jumps=tuple(item for item in expectation.jumps if item.family not in gone),
        policies=tuple(item for item in expectation.policies if item.family not in gone),
    )


def to_json(expectation: Expectation) -> dict[str, Any]:
    """Return plain data for the state file."""
    return {"format": FORMAT, **to_plain(expectation)}


def from_json(data: Any) -> Expectation:
    """Read what `to_json` gave. Raises ValueError for anything else."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("not a state file of this version")
    body = {name: value for name, value in data.items() if name != "format"}
    try:
        return from_plain(body, Expectation, {"policies", "doors", "tallies"})
    except NotPlainDataError as error:
        raise ValueError(f"damaged state file: {error}") from error
