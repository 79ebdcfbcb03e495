"""A packet's way through hooks and layers, as a few lines of text made from the chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.render.comments import comment_lines, one_line
from sipfw.ruleset.model import Chain, Hook, Layer, Priority
from sipfw.ruleset.rule import Goto, Jump

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sipfw.ruleset.model import Base, Ruleset

# A layer is one line as long as it fits a wide terminal.
_WIDTH = 160

_HOOKS = list(Hook)
_PRIORITIES = list(Priority)


def map_lines(ruleset: Ruleset) -> list[str]:
    """Return comments: one for each hook that calls a chain, below it one for each layer."""
    chains = {chain.name: chain for chain in ruleset.chains}
    bases = [(chain.base, chain) for chain in ruleset.chains if chain.base is not None]
    lines: list[str] = []
    for base, first in sorted(bases, key=lambda pair: _moment(pair[0])):
        lines += _line(f"{base.priority.value} {base.hook.value.upper()}", [first], chains)
        others = _reached(first, chains)
        for layer in Layer:
            if members := [chain for chain in others if chain.layer is layer]:
                lines += _line(f"  {layer.value:14}", members, chains)
    return lines


def _moment(base: Base) -> tuple[int, int]:
    return _HOOKS.index(base.hook), _PRIORITIES.index(base.priority)


def _line(head: str, members: list[Chain], chains: Mapping[str, Chain]) -> tuple[str, ...]:
    main = _main(members)
    text = f"{head} {main.name}: {one_line(main.summary)}"
    if len(members) > 1:
        text += f" (and {len(members) - 1} more)"
    layers = {chain.layer for member in members for chain in _next(member, chains)}
    layers.discard(main.layer)
    if layers:
        text += f" > {', '.join(layer.value for layer in Layer if layer in layers)}"
    return comment_lines(text, _WIDTH)


def _main(members: list[Chain]) -> Chain:
    """Return the chain that is named after its layer, or else the first that packets meet."""
    name = f"SIP_{members[0].layer.name}"
    return next((chain for chain in members if chain.name == name), members[0])


def _reached(first: Chain, chains: Mapping[str, Chain]) -> Iterable[Chain]:
    """Return what packets may meet behind this chain, in the order of the ruleset."""
    found: set[str] = set()
    open_ends = [first]
    while open_ends:
        for chain in _next(open_ends.pop(), chains):
            if chain.name not in found:
                found.add(chain.name)
                open_ends.append(chain)
    return [chain for chain in chains.values() if chain.name in found]


def _next(chain: Chain, chains: Mapping[str, Chain]) -> Iterator[Chain]:
    for rule in chain.rules:
        if isinstance(rule.action, (Jump, Goto)):
            yield chains[rule.action.chain]
