"""Whether a firewall of nftables is whole, without a look into the sets that packets fill.

A full reading lists every element: with 240,000 of them it takes 4 s of CPU, and a flood is when
they are there. This one does not see a rule that was edited under its comment; `verify` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compare.compare import marks_of
from sipfw.compare.sets import compare_elements
from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.nft.tool import NftTool, live_from_json
from sipfw.kernel.state.marks import marks_in_nftables

if TYPE_CHECKING:
    from sipfw.compare.expected import Expectation


def is_whole(expectation: Expectation) -> bool:
    """Tell whether all rules are there and static sets hold what they should, none asleep.

    A set that a rule uses cannot go away. False says no more than that a full look is needed.
    """
    tool = NftTool(SubprocessRunner())
    try:
        return (
            marks_in_nftables() == marks_of(expectation)
            and not tool.is_dormant()
            and all(
                compare_elements(item.elements, _elements(tool, item.name)).same
                for item in expectation.sets
                if item.elements is not None
            )
        )
    except BackendError:
        return False


def _elements(tool: NftTool, name: str) -> frozenset[str]:
    found = live_from_json(tool.list_set(name), frozenset({name})).sets[name]
    return found.elements or frozenset()
