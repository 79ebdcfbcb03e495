"""Which ports a ruleset judges before connection tracking, and so before any NAT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.ruleset.match import Ports
from sipfw.ruleset.model import Base, Hook, Priority
from sipfw.ruleset.rule import Goto
from sipfw.ruleset.source import Door

if TYPE_CHECKING:
    from sipfw.ruleset.model import Ruleset

_RAW = Base(Hook.PREROUTING, Priority.RAW)


def doors_of(ruleset: Ruleset) -> tuple[Door, ...]:
    """Return the ports of signalling, sorted; what arrives for any other one is let alone."""
    found = {
        Door(match.proto, port)
        for chain in ruleset.chains
        if chain.base == _RAW
        for rule in chain.rules
        if isinstance(rule.action, Goto)
        for match in rule.matches
        if isinstance(match, Ports)
        for item in match.ranges
        for port in range(item.first, item.last + 1)
    }
    return tuple(sorted(found))
