"""What of sipfw an `iptables-save` file holds, line by line. Pure text; takes any file.

A file that somebody has edited must be understood like one that iptables-save wrote, and whatever
is not understood is somebody else's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.kernel.xtables.save_text import OUR_MARK, SavedRule, split_words

if TYPE_CHECKING:
    from collections.abc import Iterator

_COUNTERS = re.compile(r"^\[\d+:\d+\] ")
_HEAD = re.compile(r"^:(\S+) (\S+)")
_SET_OPTIONS = frozenset({"--match-set", "--add-set", "--del-set", "--map-set"})
# xt_comment.h: a comment has 255 characters. What is longer is no quoted text of a rule.
_JOINED, _LONGEST = 16, 4096
_OUR_SET = re.compile(r"sipfw-[A-Za-z0-9_.-]{1,25}")


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set of ours that rules name; `dimension` is how many fields of a packet they look up."""

    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class _Line:
    """One line, or several where a quoted text holds line feeds; `number` counts from 1."""

    number: int
    text: str
    table: str
    chain: str | None = None
    rule: SavedRule | None = None
    is_head: bool = False


@dataclass(slots=True)
class XtablesDump:
    """A file taken apart; `first` is the first line with something of ours, None without any."""

    first: int | None = None
    rules: int = 0
    sets: tuple[NamedSet, ...] = ()
    lines: list[_Line] = field(default_factory=list)
    chains: frozenset[tuple[str, str]] = frozenset()

    def without_ours(self) -> str:
        """Return the file without our chains, our rules and every rule that leads to them."""
        kept = (line.text for line in self.lines if not self._is_ours(line))
        return "\n".join(kept)

    def _is_ours(self, line: _Line) -> bool:
        if line.chain is not None and (line.table, line.chain) in self.chains:
            return True
        rule = line.rule
        return rule is not None and (rule.is_ours or (line.table, rule.target) in self.chains)


def xtables_dump(text: str) -> XtablesDump:
    """Take a file apart."""
    lines = list(_lines(text))
    built_in = {
        (line.table, line.chain)
        for line in lines
        if line.is_head and not line.text.split()[1].startswith("-")
    }
    chains = frozenset(
        (line.table, line.rule.chain)
        for line in lines
        if line.rule is not None
        and line.rule.is_ours
        and (line.table, line.rule.chain) not in built_in
    )
    named = _named_sets(lines)
    ours = [line.number for line in lines if line.rule is not None and line.rule.is_ours]
    return XtablesDump(
        min([*ours, *named.values()], default=None), len(ours), tuple(named), lines, chains
    )


def created_sets(text: str) -> frozenset[str]:
    """Name the sets of ours that a file of `ipset save` makes by itself."""
    words = (line.split(None, 2) for line in text.splitlines())
    return frozenset(
        each[1]
        for each in words
        if len(each) > 1 and each[0] in {"create", "-N"} and _OUR_SET.fullmatch(each[1])
    )


def _lines(text: str) -> Iterator[_Line]:
    table = ""
    for number, line in _logical_lines(text):
        if line.startswith("*"):
            table = line[1:].strip()
            yield _Line(number, line, table)
        elif head := _HEAD.match(line):
            yield _Line(number, line, table, head[1], is_head=True)
        elif rule := _rule(_COUNTERS.sub("", line)):
            yield _Line(number, line, table, rule.chain, rule)
        else:
            yield _Line(number, line, table)


def _rule(line: str) -> SavedRule | None:
    option, _, rest = line.partition(" ")
    chain = rest.partition(" ")[0]
    return SavedRule(chain, line) if option in {"-A", "-I"} and chain else None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join the lines inside quotes: a comment of somebody's may hold a line feed."""
    pending, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        start = start if pending else number
        whole = f"{pending}\n{line}" if pending else line
        quotes = 0 if whole.startswith("#") else re.sub(r"\\.", "", whole).count('"')
        if quotes % 2 and number - start < _JOINED and len(whole) < _LONGEST:
            pending = whole
        else:
            pending = ""
            yield start, whole
    if pending:
        yield start, pending


def _named_sets(lines: list[_Line]) -> dict[NamedSet, int]:
    """Return the sets of ours that rules name, with the line that names each first."""
    found: dict[str, tuple[int, int]] = {}
    for line in lines:
        if line.rule is None or "sipfw-" not in line.text:
            continue
        words = split_words(line.text)
        for option, name, flags in zip(words, words[1:], words[2:], strict=False):
            if option in _SET_OPTIONS and _OUR_SET.fullmatch(name):
                number, dimension = found.get(name, (line.number, 1))
                found[name] = number, max(dimension, flags.count(",") + 1)
    return {NamedSet(name, size): number for name, (number, size) in found.items()}


def mentions_ours(text: str) -> int | None:
    """Return the first line with our mark, in a file of whatever language; None without one."""
    at = text.find(OUR_MARK)
    return None if at < 0 else text.count("\n", 0, at) + 1
