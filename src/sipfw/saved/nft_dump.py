"""What of sipfw a file for `nft -f` holds, and the file without it. Pure text; takes any file.

`nft list ruleset` prints our text searches as `xt match "string"`, and nothing of nft can read
that again: "unsupported xtables compat expression" (nft 0.9 to 1.1, src/parser_bison.y), so not
one rule of such a file is loaded. Tables of iptables-nft are printed likewise, and nft 1.0.6
leaves their comments out, so that our chains there are known by their entry, `SIPFW_...`, and by
what is reached from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.save_text import OUR_MARK
from sipfw.lower.nftables_plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r'"[^"\n]*"?|#[^\n]*|\\\n|[{};\n]|[^\s"#{};\\]+|\\',
)
_FAMILIES = frozenset({"ip", "ip6", "inet", "arp", "bridge", "netdev"})
_XTABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})
_JUMP = re.compile(r"\b(?:jump|goto)\s+(SIP[A-Z0-9_]*)")
_CHAIN = re.compile(r"SIP(?:FW)?_[A-Z0-9_]+")
# What our part of such a file cannot be loaded for.
_COMPAT = re.compile(r"\bxt (?:match|target)\b|^\s*#\s*xt_", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement with the span of its text; `inner` are those in its braces."""

    words: tuple[str, ...]
    start: int
    end: int
    inner: tuple[_Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Include:
    """An `include` statement: its span and the path or glob that it names."""

    start: int
    end: int
    path: str


@dataclass(frozen=True, slots=True)
class NftDump:
    """A file taken apart; `first` is the first line with something of ours, None without any.

    `tables` are those of others that it makes, as `family name`. `compat` tells that nft itself
    cannot read our part of it again.
    """

    text: str
    first: int | None
    compat: bool
    tables: tuple[str, ...]
    includes: tuple[Include, ...]
    spans: tuple[tuple[int, int], ...] = ()
    flushes: tuple[tuple[int, int], ...] = field(default=())

    def without_ours(self, *, flushes: bool = True) -> str:
        """Return the file without what is ours; without `flushes` also without `flush ruleset`."""
        spans = sorted((*self.spans, *(() if flushes else self.flushes)))
        kept, at = [], 0
        for start, end in spans:
            kept.append(self.text[at:start])
            at = max(at, end)
        return "".join([*kept, self.text[at:]])


def nft_dump(text: str) -> NftDump:
    """Take a file apart."""
    statements = _parsed(text)
    spans: list[tuple[int, int]] = []
    tables: dict[str, None] = {}
    for item in statements:
        named = _table_of(item.words)
        if named == ("inet", TABLE):
            spans.append(_whole_lines(text, item))
            continue
        if named is not None and item.words[0] in {"table", "add", "create"}:
            tables[" ".join(named)] = None
        if named is not None and named[0] in {"ip", "ip6"} and named[1] in _XTABLES:
            spans += [_whole_lines(text, each) for each in _ours_inside(text, item)]
    return NftDump(
        text,
        min((text.count("\n", 0, start) + 1 for start, _ in spans), default=None),
        any(_COMPAT.search(text, start, end) for start, end in spans),
        tuple(tables),
        tuple(_includes(statements)),
        tuple(spans),
        tuple(_whole_lines(text, i) for i in statements if i.words[:2] == ("flush", "ruleset")),
    )


def _table_of(words: tuple[str, ...]) -> tuple[str, str] | None:
    """Return family and name of the table that a statement makes or changes; nft's default: ip."""
    if words[:1] == ("table",):
        rest = words[1:]
    elif len(words) > 2 and words[0] in {
        "add",
        "create",
        "insert",
        "replace",
        "delete",
        "destroy",
        "flush",
        "reset",
    }:
        rest = words[2:]
    else:
        return None
    if len(rest) > 1 and rest[0] in _FAMILIES:
        return rest[0], rest[1]
    return ("ip", rest[0]) if rest else None


def _ours_inside(text: str, table: _Statement) -> Iterator[_Statement]:
    """Yield our chains in a table of iptables-nft, and the rules of others' chains to them."""
    chains = {
        item.words[1]: item
        for item in table.inner
        if item.words[:1] == ("chain",) and len(item.words) > 1
    }
    ours = _our_chains(text, chains)
    for name, chain in chains.items():
        if name in ours:
            yield chain
            continue
        for rule in chain.inner:
            line = text[rule.start : rule.end]
            found = _JUMP.search(line)
            if (found and found[1] in ours) or f'comment "{OUR_MARK}' in line:
                yield rule


def _our_chains(text: str, chains: dict[str, _Statement]) -> set[str]:
    """Return the chains that are reached from our entries, and those with our mark.

    The chains of a script from a guide have names like ours, but no such entry leads to them.
    """
    bodies = {name: text[item.start : item.end] for name, item in chains.items()}
    found: set[str] = set()
    marked = [
        name
        for name, body in bodies.items()
        if _CHAIN.fullmatch(name) and f'comment "{OUR_MARK}' in body
    ]
    waiting = [*marked, *(name for name in bodies if name.startswith("SIPFW_"))]
    while waiting:
        name = waiting.pop()
        if name in found or name not in bodies:
            continue
        found.add(name)
        waiting += _JUMP.findall(bodies[name])
    return found


def _includes(statements: tuple[_Statement, ...]) -> Iterator[Include]:
    for item in statements:
        if len(item.words) == 2 and item.words[0] == "include":
            yield Include(item.start, item.end, item.words[1].strip('"'))


def _whole_lines(text: str, item: _Statement) -> tuple[int, int]:
    """Return the span with the rest of its lines and a blank one, where nothing else is in them."""
    start = text.rfind("\n", 0, item.start) + 1
    end = text.find("\n", item.end)
    end = len(text) if end < 0 else end + 1
    alone = not text[start : item.start].strip() and not text[item.end : end].strip(" \t\n;")
    if not alone:
        return item.start, item.end
    blank = text.find("\n", end)
    return start, blank + 1 if blank >= 0 and not text[end:blank].strip() else end


@dataclass(slots=True)
class _Open:
    """A statement that has not ended yet, and the block that it stands in."""

    words: list[str] = field(default_factory=list)
    start: int | None = None
    end: int = 0
    inner: list[_Statement] = field(default_factory=list)
    done: list[_Statement] = field(default_factory=list)

    def finish(self) -> None:
        if self.start is not None:
            words = tuple(self.words)
            self.done.append(_Statement(words, self.start, self.end, tuple(self.inner)))
        self.words, self.start, self.inner = [], None, []


def _parsed(text: str) -> tuple[_Statement, ...]:
    """Return the statements. A brace too many ends nothing, and one too few ends with the file."""
    stack = [_Open()]
    for token in _TOKEN.finditer(text):
        sign, at = token[0], stack[-1]
        if sign.startswith("#") or sign == "\\\n":
            continue
        if sign in {"\n", ";"}:
            at.finish()
        elif sign == "{":
            at.start = token.start() if at.start is None else at.start
            stack.append(_Open())
        elif sign == "}":
            if len(stack) > 1:
                at.finish()
                stack.pop()
                stack[-1].inner += at.done
                stack[-1].end = token.end()
        else:
            at.start = token.start() if at.start is None else at.start
            at.words.append(sign)
            at.end = token.end()
    while len(stack) > 1:
        inner = stack.pop()
        inner.finish()
        stack[-1].inner += inner.done
        stack[-1].end = len(text)
    stack[0].finish()
    return tuple(stack[0].done)
