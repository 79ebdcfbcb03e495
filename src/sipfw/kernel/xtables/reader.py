"""iptables of either flavour and ipset in the neutral form that `verify` compares."""

from __future__ import annotations

from itertools import chain as chained
from typing import TYPE_CHECKING, Protocol

from sipfw.compare.foreign import ForeignChain
from sipfw.compare.live import (
    Live,
    LiveChain,
    LiveJump,
    LivePolicy,
    LiveRule,
    LiveSetState,
)
from sipfw.errors import BackendError
from sipfw.kernel.xtables.foreign import foreign_rule
from sipfw.kernel.xtables.ipset import OUR_PREFIX, Ipsets, LiveSet
from sipfw.kernel.xtables.ipset_text import elements_of
from sipfw.kernel.xtables.live import LiveRuleset
from sipfw.kernel.xtables.tools import LegacyTools
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from sipfw.compare.foreign import ForeignRule
    from sipfw.host.runner import Runner
    from sipfw.kernel.xtables.live import LiveJump as OurJump
    from sipfw.kernel.xtables.save_text import SavedChain, SavedRule, SavedTable
    from sipfw.kernel.xtables.tools import Tables


class Tools(Protocol):
    """One flavour of iptables, as far as reading goes."""

    def existing(self, family: Family) -> Tables:
        """Return the tables that exist in this network namespace, without creating any."""
        ...


class IptablesReader:
    """Reads; writes nothing, and creates no table that does not exist yet."""

    def __init__(self, runner: Runner, tools: Tools | None = None) -> None:
        self._tools = tools or LegacyTools(runner)
        self._sets = Ipsets(runner)

    def live(self, chain_names: frozenset[str], static_sets: frozenset[str]) -> Live:
        """Return our chains, jumps and sets, and chains that only have one of these names."""
        tables: Tables = {}
        for family in Family:
            tables |= self._tools.existing(family)
        chains = [
            _chain(family, name, chain)
            for (family, name), table in tables.items()
            for chain in table.chains
            if chain.policy is None and (chain.is_ours or chain.name in chain_names)
        ]
        sets, silence = self._set_states(static_sets)
        return Live(
            tuple(chains),
            tuple(
                _jump(jump, tables[jump.family, jump.table])
                for jump in LiveRuleset(tables, ()).our_jumps()
            ),
            sets,
            policies=tuple(_policies(tables)),
            strays=tuple(_strays(tables, chain_names)),
            silence=silence,
        )

    def _set_states(
        self, static_sets: frozenset[str]
    ) -> tuple[tuple[LiveSetState, ...], str | None]:
        """Return our sets, or why there is no answer: a host without ipset may need none."""
        try:
            present = self._sets.list_sets()
        except BackendError as error:
            hint = error.hint or "make sure that `ipset list -n` works for root"
            return (), f"{error.message}; {hint}"
        states = tuple(
            self._state(item, item.name in static_sets)
            for item in present
            if item.name.startswith(OUR_PREFIX)
        )
        return states, None

    def _state(self, item: LiveSet, static: bool) -> LiveSetState:
        saved = self._sets.snapshot([item.name]).saved[item.name] if static else None
        elements = None if saved is None else frozenset(elements_of(saved))
        return LiveSetState(item.name, item.type, item.header, item.entries, elements)


def _rule(rule: SavedRule) -> LiveRule:
    return LiveRule(rule.rule_id, rule.digest, rule.packets, rule.bytes, rule.line)


def _chain(family: Family, table: str, chain: SavedChain) -> LiveChain:
    return LiveChain(family, table, chain.name, tuple(_rule(rule) for rule in chain.rules))


def _jump(jump: OurJump, table: SavedTable) -> LiveJump:
    chains = frozenset(chain.name for chain in table.chains)
    led = tuple(
        ForeignChain(chain.name, _foreign(chain.rules, chains))
        for chain in _led(jump.before, table)
    )
    hook = table.chain(jump.hook)
    rules = () if hook is None else hook.rules[jump.position :]
    return LiveJump(
        jump.family,
        jump.table,
        jump.hook,
        _rule(jump.rule),
        _foreign(jump.before, chains),
        led,
        _foreign((rule for rule in rules if not rule.is_ours), chains),
    )


def _foreign(rules: Iterable[SavedRule], chains: Container[str]) -> tuple[ForeignRule, ...]:
    return tuple(foreign_rule(rule.line, chains) for rule in rules)


def _led(rules: Iterable[SavedRule], table: SavedTable) -> list[SavedChain]:
    """Return the foreign chains that the rules lead into, and those that these lead into."""
    foreign = {c.name: c for c in table.chains if c.policy is None and not c.is_ours}
    found: dict[str, SavedChain] = {}
    waiting = list(rules)
    while waiting:
        chain = foreign.get(waiting.pop().target or "")
        if chain is not None and chain.name not in found:
            found[chain.name] = chain
            waiting += chain.rules
    return list(found.values())


def _policies(tables: Tables) -> Iterator[LivePolicy]:
    """Return the policies behind our jumps, and of filter/INPUT: whether the host is shut."""
    for (family, name), table in tables.items():
        for chain in table.chains:
            hooked = any(rule.is_ours for rule in chain.rules)
            if chain.policy is not None and (hooked or (name, chain.name) == ("filter", "INPUT")):
                yield LivePolicy(family, name, chain.name, chain.policy)


def _strays(tables: Tables, chain_names: frozenset[str]) -> Iterator[LiveJump]:
    for (family, name), table in tables.items():
        ours = {c.name for c in table.chains if c.is_ours and c.name in chain_names}
        if not ours:
            continue
        outside = (chain.rules for chain in table.chains if chain.name not in ours)
        for rule in chained.from_iterable(outside):
            if not rule.is_ours and rule.target in ours:
                yield LiveJump(family, name, rule.chain, _rule(rule), ())
