"""The way back to an earlier `table inet sipfw`: remember it whole, and put it in force again.

Chains and sets come back from nft's own listing in one transaction. Text searches, which nft lists
but cannot load, are filled in by netlink before it, into chains that nothing leads to yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compare.compare import differing
from sipfw.errors import BackendError
from sipfw.kernel.netlink.rules import TextRule, fill_chains, read_chain
from sipfw.kernel.nft.tool import NftTool, live_from_json
from sipfw.lower.nftables_plan import TABLE
from sipfw.ruleset.rule import Goto, Jump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.kernel.nft.tool import ListedChain, NftListing

_BLOCK = re.compile(r"\t(\w+) (\S+) \{")
_TEXT_CHAIN = "_text_"


@dataclass(frozen=True, slots=True)
class Block:
    """One set, chain or other object of a listing; `lines` are what stands between its braces."""

    kind: str
    name: str
    lines: tuple[str, ...]

    @property
    def head(self) -> str:
        """What defines it apart from its content: a set's options, a base chain's hook."""
        if self.kind == "chain":
            return "\n".join(line for line in self.lines if line.startswith("\t\ttype "))
        return "\n".join(line for line in self.lines if _is_option(line))

    @property
    def is_dynamic(self) -> bool:
        """Tell whether packets write its elements."""
        flags = [line for line in self.lines if line.startswith("\t\tflags ")]
        return any("dynamic" in line or "timeout" in line for line in flags)

    @property
    def is_text(self) -> bool:
        """Tell whether it is a chain of text searches."""
        return self.kind == "chain" and _TEXT_CHAIN in self.name


@dataclass(frozen=True, slots=True)
class TableSnapshot:
    """Our table at one moment; `blocks` and `live` are None when there was none.

    A chain of text searches that holds another rule as well cannot be put back: its value is None.
    """

    blocks: tuple[Block, ...] | None
    texts: Mapping[str, tuple[TextRule, ...] | None]
    live: NftListing | None


def remember(tool: NftTool) -> TableSnapshot:
    """Return the table as it is now."""
    text = tool.list_text()
    objects = tool.list_table()
    if text is None or objects is None:
        return TableSnapshot(None, {}, None)
    blocks = parse_listing(text)
    texts = {block.name: _searches(block.name) for block in blocks if block.is_text}
    return TableSnapshot(blocks, texts, live_from_json(objects, _static_sets(blocks)))


def go_back(tool: NftTool, before: TableSnapshot) -> None:
    """Put the table of `before` in force; BackendError when it is not in force afterwards."""
    if before.blocks is None:
        tool.apply(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
        return
    _fill_texts(tool, before)
    now = parse_listing(tool.list_text() or "")
    tool.apply(return_text(before.blocks, now))
    objects = tool.list_table() or []
    differing = _differing(before.live, live_from_json(objects, _static_sets(before.blocks)))
    if differing:
        raise BackendError(f"these differ from before: {', '.join(differing)}")


def parse_listing(text: str) -> tuple[Block, ...]:
    """Return the objects in the text of `nft list table`."""
    blocks: list[Block] = []
    kind, name, lines = "", "", list[str]()
    for line in text.split("\n"):
        if head := _BLOCK.fullmatch(line):
            kind, name, lines = head[1], head[2], []
        elif line == "\t}" and name:
            blocks.append(Block(kind, name, tuple(lines)))
            name = ""
        elif name:
            lines.append(line)
    return tuple(blocks)


def return_text(before: tuple[Block, ...], now: tuple[Block, ...]) -> str:
    """Return the transaction that turns the table of `now` into that of `before`.

    A set that packets write to and that has its old options stays, with what it learned.
    """
    old = {(block.kind, block.name): block for block in before}
    new = {(block.kind, block.name): block for block in now}
    kept = {
        key
        for key, block in new.items()
        if key in old and block.head == old[key].head and (block.is_dynamic or block.is_text)
    }
    chains = [block for block in now if block.kind == "chain"]
    others = [block for block in now if block.kind != "chain"]
    lines = [f"add table inet {TABLE}"]
    # A chain of searches is never flushed by text: nft could not fill it again.
    lines += [
        f"flush chain inet {TABLE} {block.name}"
        for block in chains
        if (block.kind, block.name) not in kept
    ]
    lines += [
        f"delete chain inet {TABLE} {block.name}"
        for block in chains
        if (block.kind, block.name) not in old or block.head != old[block.kind, block.name].head
    ]
    lines += [
        f"delete {block.kind} inet {TABLE} {block.name}"
        for block in others
        if (block.kind, block.name) not in kept
    ]
    lines.append(f"table inet {TABLE} {{")
    for key, block in old.items():
        if key not in kept:
            content = () if block.is_text else block.lines
            lines += [f"\t{block.kind} {block.name} {{", *content, "\t}"]
    return "\n".join([*lines, "}", ""])


def _static_sets(blocks: tuple[Block, ...]) -> frozenset[str]:
    """Name the sets whose content the policy decides; the JSON of nft 1.0.6 keeps it a secret."""
    return frozenset(b.name for b in blocks if b.kind == "set" and not b.is_dynamic)


def _is_option(line: str) -> bool:
    """Tell a set's option from its elements, which may fill many lines."""
    return line.startswith("\t\t") and line[2:3].isalpha() and not line.startswith("\t\telements")


def _searches(chain: str) -> tuple[TextRule, ...] | None:
    try:
        return read_chain(chain)
    except BackendError:
        return None


def _fill_texts(tool: NftTool, before: TableSnapshot) -> None:
    """Make the chains of searches that are gone or changed."""
    now = parse_listing(tool.list_text() or "")
    there = {block.name: _searches(block.name) for block in now if block.is_text}
    wanted = {
        name: rules
        for name, rules in before.texts.items()
        if rules is not None and _without_counts(there.get(name)) != _without_counts(rules)
    }
    targets = {
        rule.verdict.chain
        for rules in wanted.values()
        for rule in rules
        if isinstance(rule.verdict, Goto | Jump)
    }
    names = [*sorted(targets), *wanted]
    lines = [f"add table inet {TABLE}", *(f"add chain inet {TABLE} {name}" for name in names)]
    tool.apply("\n".join(lines) + "\n")
    fill_chains(wanted)


def _without_counts(rules: tuple[TextRule, ...] | None) -> list[tuple[object, ...]] | None:
    if rules is None:
        return None
    return [(rule.comment, rule.pattern, rule.from_offset, rule.verdict) for rule in rules]


def _differing(before: NftListing | None, now: NftListing) -> list[str]:
    if before is None:
        return ["the whole table"]
    chains = differing(_chains(before), _chains(now))
    sets = differing(_sets(before), _sets(now))
    return [f"chain {name}" for name in chains] + [f"set {name}" for name in sets]


def _chains(listing: NftListing) -> dict[str, object]:
    def content(chain: ListedChain) -> object:
        rules = [(rule.rule_id, rule.digest, rule.line) for rule in chain.rules]
        return chain.hook, chain.priority, chain.policy, rules

    return {name: content(chain) for name, chain in listing.chains.items()}


def _sets(listing: NftListing) -> dict[str, object]:
    return {name: (item.type, item.header, item.elements) for name, item in listing.sets.items()}
