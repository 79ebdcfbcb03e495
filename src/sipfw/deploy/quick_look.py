"""Whether a firewall of nftables is whole, without a look into the sets that packets fill.

A full reading lists every element: with 240,000 of them it takes 4 s of CPU, and a flood is when
they are there. This one does not see a rule that was edited under its comment; `verify` does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sipfw.backends.live_marks import marks
from sipfw.backends.nft_tool import NftTool, live_from_json
from sipfw.backends.runner import SubprocessRunner
from sipfw.errors import BackendError
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.verify.expectation import Expectation

_NFTABLES = "nftables"


def is_whole(expectation: Expectation) -> bool:
    """Tell whether all rules are there and static sets hold what they should, none asleep.

    A set that a rule uses cannot go away. False says no more than that a full look is needed.
    """
    runner = SubprocessRunner()
    tool = NftTool(runner)
    try:
        found = marks(_NFTABLES, Family.IP, runner)
        return (
            found == Counter(_marks(expectation))
            and not tool.is_dormant()
            and all(
                _elements(tool, item.name) == frozenset(item.elements)
                for item in expectation.sets
                if item.elements is not None
            )
        )
    except BackendError:
        return False


def _marks(expectation: Expectation) -> Iterator[str]:
    for chain in expectation.chains:
        yield from (f"{rule.id}#{rule.digest}" for rule in chain.rules)
    for jump in expectation.jumps:
        yield f"{jump.rule.id}#{jump.rule.digest}"


def _elements(tool: NftTool, name: str) -> frozenset[str]:
    found = live_from_json(tool.list_set(name), frozenset({name})).sets[name]
    return found.elements or frozenset()
