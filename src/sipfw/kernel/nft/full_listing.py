"""Everything that nft says of our table, for the comparison of two kernels' words.

The JSON of nft leaves something out (1.0.6: the flag `dynamic`), so its text form is read as well.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.runner import SubprocessRunner
from sipfw.kernel.nft.tool import NftTool
from sipfw.kernel.nft.way_back import parse_listing
from sipfw.lower.naming import split_nft_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sipfw.compare.deep import Definitions
    from sipfw.compare.live import Live, LiveChain
    from sipfw.kernel.nft.way_back import Block

_COUNTER = re.compile(r"\bcounter packets \d+ bytes \d+")
_ATTEMPTS = 3


def with_text(read: Callable[[], Live]) -> tuple[Live, Definitions]:
    """Return what `read` finds live, with rules as nft writes them, and how sets are defined."""
    for _ in range(_ATTEMPTS):
        live = read()
        text = NftTool(SubprocessRunner()).list_text(elements=False) or ""
        blocks = parse_listing(text)
        chains = _with_text(live.chains, blocks)
        if chains is not None:
            definitions = {item.name: _words(item) for item in blocks if item.kind == "set"}
            return replace(live, chains=chains), definitions
    raise BackendError("table inet sipfw changes faster than it can be read", hint="try again")


def _with_text(
    chains: Iterable[LiveChain], blocks: Iterable[Block]
) -> tuple[LiveChain, ...] | None:
    """Return the chains with the lines of the text form; None where one has changed between."""
    found = {}
    for block in blocks:
        place = split_nft_chain(block.name) if block.kind == "chain" else None
        if place is not None:
            found[place] = _rule_lines(block)
    texted = []
    for chain in chains:
        lines = found.get((chain.name, chain.family), [])
        if len(lines) != len(chain.rules):
            return None
        pairs = zip(chain.rules, lines, strict=True)
        texted.append(replace(chain, rules=tuple(replace(rule, line=text) for rule, text in pairs)))
    return tuple(texted)


def _rule_lines(block: Block) -> list[str]:
    lines: list[str] = []
    for line in block.lines:
        if line.startswith("\t\t\t") and lines:
            # The elements of an unnamed set may go on in lines of their own.
            lines[-1] += f" {line.strip()}"
        elif not line.startswith(("\t\ttype ", "\t\tcomment ")):
            lines.append(line.strip())
    return [_COUNTER.sub("counter", line) for line in lines]


def _words(block: Block) -> tuple[str, ...]:
    return tuple(sorted(line.strip() for line in block.head.split("\n")))
