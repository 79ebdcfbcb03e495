"""Which chains a packet can reach; not in the compiler, whose policy models load slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.ruleset.rule import Goto, Jump

if TYPE_CHECKING:
    from sipfw.ruleset.model import Chain


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
