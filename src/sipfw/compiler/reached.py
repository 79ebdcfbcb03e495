"""Which chains a packet can reach, and of which sets it is asked.

Not in the compiler, whose policy models load slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.ruleset.match import CountAbove, InSet, VolumeAbove
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Goto, Jump, UpdateSet

if TYPE_CHECKING:
    from sipfw.ruleset.model import AddressSet, Chain


def reached(chains: list[Chain]) -> list[Chain]:
    """Leave out what no packet can reach, such as the plain SIP layers of a TLS-only switch."""
    by_name = {chain.name: chain for chain in chains}
    found: set[str] = set()
    waiting = [chain.name for chain in chains if chain.base is not None]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [
            rule.action.chain
            for rule in by_name[name].rules
            if isinstance(rule.action, Jump | Goto)
        ]
    return [chain for chain in chains if chain.name in found]


def asked(sets: list[AddressSet], chains: list[Chain]) -> list[AddressSet]:
    """Leave out dynamic sets that no rule of these chains asks or writes."""
    rules = [rule for chain in chains for rule in chain.rules]
    found = {
        match.set
        for rule in rules
        for match in rule.matches
        if isinstance(match, InSet | CountAbove | VolumeAbove)
    }
    found |= {
        rule.action.set
        for rule in rules
        if isinstance(rule.action, UpdateSet | AddOnce | DeleteFromSet)
    }
    return [item for item in sets if not item.dynamic or item.name in found]
