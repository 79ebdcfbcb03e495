"""Everything that a kernel says of our rules and sets, for the comparison of two kernels' words.

The JSON of nft leaves something out (1.0.6: the flag `dynamic`), so its text form is read as well.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.backends.ipset import OUR_PREFIX, Ipsets
from sipfw.backends.ipset_text import header_options
from sipfw.backends.nft_return import parse_listing
from sipfw.backends.nft_tool import NftTool
from sipfw.backends.runner import SubprocessRunner
from sipfw.errors import BackendError
from sipfw.lower.naming import split_nft_chain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.backends.interface import Live, LiveChain
    from sipfw.backends.nft_return import Block
    from sipfw.deploy.targets import Target
    from sipfw.verify.deep import Definitions
    from sipfw.verify.expectation import Expectation

_COUNTER = re.compile(r"\bcounter packets \d+ bytes \d+")
_ATTEMPTS = 3


def read_fully(chosen: Target, expectation: Expectation) -> tuple[Live, Definitions]:
    """Return what is live, with rules in the kernel's fullest words, and how sets are defined."""
    if chosen.name != "nftables":
        return chosen.live(expectation), _ipset_definitions()
    for _ in range(_ATTEMPTS):
        live = chosen.live(expectation)
        text = NftTool(SubprocessRunner()).list_text(elements=False) or ""
        blocks = parse_listing(text)
        chains = _with_text(live.chains, blocks)
        if chains is not None:
            definitions = {item.name: _words(item) for item in blocks if item.kind == "set"}
            return replace(live, chains=chains), definitions
    raise BackendError("table inet sipfw changes faster than it can be read", hint="try again")


def _ipset_definitions() -> Definitions:
    found: dict[str, tuple[str, ...]] = {}
    for item in Ipsets(SubprocessRunner()).list_if_installed():
        if item.name.startswith(OUR_PREFIX):
            options = header_options(item.header, item.type)
            found[item.name] = tuple(f"{name} {value}".strip() for name, value in options.items())
    return found


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
