"""iptables of either flavour and ipset in the neutral form that `verify` compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sipfw.backends.interface import Live, LiveChain, LiveJump, LiveRule, LiveSetState
from sipfw.backends.ipset import OUR_PREFIX, Ipsets, LiveSet
from sipfw.backends.ipset_text import elements_of
from sipfw.backends.iptables_live import LiveRuleset
from sipfw.backends.xtables_tools import LegacyTools
from sipfw.errors import BackendError
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.backends.runner import Runner
    from sipfw.backends.save_text import SavedRule
    from sipfw.backends.xtables_tools import Tables


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
        ruleset = LiveRuleset(tables, ())
        chains = [
            LiveChain(family, name, chain.name, tuple(_rule(rule) for rule in chain.rules))
            for (family, name), table in tables.items()
            for chain in table.chains
            if chain.policy is None and (chain.is_ours or chain.name in chain_names)
        ]
        jumps = [
            LiveJump(
                jump.family,
                jump.table,
                jump.hook,
                _rule(jump.rule),
                tuple(rule.line for rule in jump.before),
            )
            for jump in ruleset.our_jumps()
        ]
        return Live(tuple(chains), tuple(jumps), self._set_states(static_sets))

    def _set_states(self, static_sets: frozenset[str]) -> tuple[LiveSetState, ...]:
        try:
            present = self._sets.list_sets()
        except BackendError:
            # Without the ipset program there are no sets of ours: apply needs it to make one.
            return ()
        return tuple(
            self._state(item, item.name in static_sets)
            for item in present
            if item.name.startswith(OUR_PREFIX)
        )

    def _state(self, item: LiveSet, static: bool) -> LiveSetState:
        saved = self._sets.snapshot([item.name]).saved[item.name] if static else None
        elements = None if saved is None else frozenset(elements_of(saved))
        return LiveSetState(item.name, item.type, item.header, item.entries, elements)


def _rule(rule: SavedRule) -> LiveRule:
    return LiveRule(rule.rule_id, rule.digest, rule.packets, rule.bytes, rule.line)
