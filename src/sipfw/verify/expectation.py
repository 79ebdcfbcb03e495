"""What should be live: made from a ruleset and its plan, kept as JSON between commands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from sipfw.lower.ipset import windows
from sipfw.lower.naming import base_id, set_name, split_comment
from sipfw.lower.xtables import Family, XPlan, XRule
from sipfw.ruleset.doors import doors_of
from sipfw.ruleset.match import L4Proto
from sipfw.ruleset.rule import (
    Accept,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Goto,
    Jump,
    Log,
    NoTrack,
    Record,
    Reset,
    Return,
    UpdateSet,
)
from sipfw.ruleset.source import Door

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.backends.interface import Live
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
    """One set of one family; `elements` only where the policy decides them."""

    name: str
    type: str
    options: tuple[str, ...]
    summary: str
    elements: tuple[str, ...] | None
    origin: str = ""


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
class Expectation:
    """A whole applied firewall, as `verify` compares it.

    `doors` are the ports that it judges; an older record holds none.
    """

    chains: tuple[ExpectedChain, ...]
    jumps: tuple[ExpectedJump, ...]
    sets: tuple[ExpectedSet, ...]
    sysctls: tuple[ExpectedSysctl, ...]
    policies: tuple[ExpectedPolicy, ...] = ()
    doors: tuple[Door, ...] = ()

    def chain_names(self) -> frozenset[str]:
        """Name the chains that should be live."""
        return frozenset(chain.name for chain in self.chains)

    def static_sets(self) -> frozenset[str]:
        """Name the sets whose content the policy decides."""
        return frozenset(item.name for item in self.sets if item.elements is not None)

    def families(self) -> list[Family]:
        """Return the families that are guarded."""
        return sorted({jump.family for jump in self.jumps})


def expect(ruleset: Ruleset, plan: XPlan) -> Expectation:
    """Describe what a plan will look like when it is live."""
    rules = {rule.id: rule for chain in ruleset.chains for rule in chain.rules}
    layers = {chain.name: chain.layer.value for chain in ruleset.chains}
    return Expectation(
        chains=tuple(
            ExpectedChain(
                table.family,
                table.name,
                chain.name,
                layers[chain.name],
                tuple(_rule(rule, rules) for rule in chain.rules),
            )
            for table in plan.tables
            for chain in table.chains
        ),
        jumps=tuple(
            ExpectedJump(table.family, table.name, jump.hook, _rule(jump.rule, rules))
            for table in plan.tables
            for jump in table.jumps
        ),
        sets=tuple(_sets(ruleset, plan)),
        sysctls=tuple(
            ExpectedSysctl(item.name, item.value, str(item.origin)) for item in ruleset.sysctls
        ),
        doors=doors_of(ruleset),
    )


def _rule(lowered: XRule, rules: dict[str, Rule]) -> ExpectedRule:
    parts = split_comment(lowered.comment)
    if parts is None:
        raise AssertionError(f"a lowered rule without our mark: {lowered.comment!r}")
    rule_id, digest = parts
    rule = rules.get(base_id(rule_id))
    if rule is None:
        return ExpectedRule(rule_id, digest, "way into sipfw's chains", "built-in: hook")
    return ExpectedRule(
        rule_id, digest, rule.summary, str(rule.origin), action=action_word(rule.action)
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


def _sets(ruleset: Ruleset, plan: XPlan) -> Iterable[ExpectedSet]:
    known_sets = [*ruleset.sets, *windows(ruleset)]
    named = {set_name(item.name, family): item for item in known_sets for family in Family}
    for item in plan.sets:
        known = named[item.name]
        yield ExpectedSet(
            item.name,
            item.type,
            item.options,
            known.summary,
            item.elements if item.static else None,
            str(known.origin),
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
    return {"format": FORMAT, **asdict(expectation)}


def from_json(data: Any) -> Expectation:
    """Read what `to_json` gave. Raises ValueError for anything else."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("not a state file of this version")
    try:
        return Expectation(
            tuple(
                ExpectedChain(
                    Family(item["family"]),
                    item["table"],
                    item["name"],
                    item["layer"],
                    tuple(ExpectedRule(**rule) for rule in item["rules"]),
                )
                for item in data["chains"]
            ),
            tuple(
                ExpectedJump(
                    Family(item["family"]),
                    item["table"],
                    item["hook"],
                    ExpectedRule(**item["rule"]),
                )
                for item in data["jumps"]
            ),
            tuple(
                ExpectedSet(
                    item["name"],
                    item["type"],
                    tuple(item["options"]),
                    item["summary"],
                    None if item["elements"] is None else tuple(item["elements"]),
                    item.get("origin", ""),
                )
                for item in data["sets"]
            ),
            tuple(ExpectedSysctl(**item) for item in data["sysctls"]),
            tuple(
                ExpectedPolicy(Family(item["family"]), item["table"], item["hook"], item["policy"])
                for item in data.get("policies", ())
            ),
            tuple(Door(L4Proto(item["proto"]), item["port"]) for item in data.get("doors", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged state file: {error}") from error
