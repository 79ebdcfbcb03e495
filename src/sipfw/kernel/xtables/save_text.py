"""Reader of iptables-save text: tables, chains and rules with their counters.

Keeps every rule line as it was printed. Knows how iptables quotes, and that our rules carry a
comment `sipfw:<id>#<digest>`; it does not know what any match means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from sipfw.errors import BackendError

OUR_MARK = "sipfw:"

_CHAIN = re.compile(r":(\S+) (\S+) \[(\d+):(\d+)\]")
_COUNTERS = re.compile(r"\[(\d+):(\d+)\] ")
_TOKEN = re.compile(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+', re.DOTALL)
_BARE_QUOTE = re.compile(r'(\\.)|"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SavedRule:
    """One rule; `line` is as printed, without counters."""

    chain: str
    line: str
    packets: int = 0
    bytes: int = 0

    @property
    def counters(self) -> tuple[int, int]:
        """Packets and bytes."""
        return self.packets, self.bytes

    @property
    def comment(self) -> str | None:
        """The first comment, which is where iptables prints it."""
        return _after(self.line, "--comment")

    @property
    def is_ours(self) -> bool:
        """Whether the rule carries our mark."""
        return OUR_MARK in self.line and (self.comment or "").startswith(OUR_MARK)

    @property
    def rule_id(self) -> str | None:
        """The id in `sipfw:<id>#<digest>`, or None for a foreign rule."""
        comment = self.comment or ""
        return comment.removeprefix(OUR_MARK).partition("#")[0] if self.is_ours else None

    @property
    def digest(self) -> str | None:
        """The digest in `sipfw:<id>#<digest>`, or None without one."""
        return (self.comment or "").partition("#")[2] or None if self.is_ours else None

    @property
    def target(self) -> str | None:
        """The target or chain after -j or -g; options of a match never have these names."""
        return _after(self.line, "-j") or _after(self.line, "-g")


@dataclass(frozen=True, slots=True)
class SavedChain:
    """One chain; `policy` is None for a user chain."""

    name: str
    policy: str | None
    packets: int
    bytes: int
    rules: tuple[SavedRule, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it is a user chain that carries one of our rules."""
        return self.policy is None and any(rule.is_ours for rule in self.rules)


@dataclass(frozen=True, slots=True)
class SavedTable:
    """One table, with the text between its `*name` and `COMMIT` lines included."""

    name: str
    chains: tuple[SavedChain, ...]
    text: str

    def chain(self, name: str) -> SavedChain | None:
        """Return the chain called `name`."""
        return next((chain for chain in self.chains if chain.name == name), None)

    @property
    def rules(self) -> tuple[SavedRule, ...]:
        """All rules, chain by chain."""
        return tuple(rule for chain in self.chains for rule in chain.rules)

    def listing(self) -> tuple[str, ...]:
        """Return chains, policies and rules without counters, for comparing two states."""
        heads = tuple(f":{chain.name} {chain.policy or '-'}" for chain in self.chains)
        return heads + tuple(rule.line for rule in self.rules)


@dataclass(slots=True)
class _OpenTable:
    name: str
    lines: list[str]
    heads: dict[str, tuple[str | None, int, int]] = field(default_factory=dict)
    rules: dict[str, list[SavedRule]] = field(default_factory=dict)

    def close(self) -> SavedTable:
        chains = tuple(
            SavedChain(name, policy, packets, octets, tuple(self.rules[name]))
            for name, (policy, packets, octets) in self.heads.items()
        )
        return SavedTable(self.name, chains, "\n".join(self.lines) + "\n")


# One listing is read by all who share a look.
@lru_cache(maxsize=4)
def parse_save(text: str) -> tuple[SavedTable, ...]:
    """Parse the standard output of `iptables-save [-c]`; anything unknown in it is an error."""
    tables: list[SavedTable] = []
    current: _OpenTable | None = None
    for line in _logical_lines(text):
        if not line or line.startswith("#"):
            continue
        if line.startswith("*"):
            current = _OpenTable(line[1:], [line])
            continue
        if current is None:
            raise BackendError(f"iptables-save: unexpected line outside a table: {line!r}")
        current.lines.append(line)
        if line == "COMMIT":
            tables.append(current.close())
            current = None
        else:
            _add(current, line)
    if current is not None:
        raise BackendError(f"iptables-save: table {current.name} has no COMMIT: output was cut")
    return tuple(tables)


def split_words(line: str) -> tuple[str, ...]:
    r"""Split a rule line as iptables-restore does: double quotes, backslash escapes any character.

    shlex is not it: inside double quotes it keeps the backslash of `\'`, which iptables prints.
    """
    return tuple(_unquote(token) for token in _TOKEN.findall(line))


# Each rule is asked for its mark by all who look at the listing.
@lru_cache(maxsize=1 << 15)
def _after(line: str, option: str) -> str | None:
    """Return the word after `option`; a quoted value that looks like it is another token."""
    tokens: list[str] = _TOKEN.findall(line)
    if option not in tokens[:-1]:
        return None
    return _unquote(tokens[tokens.index(option) + 1])


def _unquote(token: str) -> str:
    if '"' not in token:
        return token
    return _ESCAPED.sub(r"\1", _BARE_QUOTE.sub(r"\1", token))


def _logical_lines(text: str) -> list[str]:
    """Join lines inside quotes: a foreign comment may hold a line feed."""
    lines: list[str] = []
    pending = ""
    for line in text.split("\n"):
        whole = f"{pending}\n{line}" if pending else line
        pending = ""
        if _is_open_quote(whole):
            pending = whole
        else:
            lines.append(whole)
    if pending:
        lines.append(pending)
    return lines


def _is_open_quote(line: str) -> bool:
    if line.startswith("#") or '"' not in line:
        return False
    return re.sub(r"\\.", "", line, flags=re.DOTALL).count('"') % 2 == 1


def _add(table: _OpenTable, line: str) -> None:
    if head := _CHAIN.fullmatch(line):
        name, policy, packets, octets = head.groups()
        table.heads[name] = (None if policy == "-" else policy, int(packets), int(octets))
        table.rules[name] = []
        return
    counters = _COUNTERS.match(line)
    packets, octets = (int(n) for n in counters.groups()) if counters else (0, 0)
    rule = line[counters.end() :] if counters else line
    option, _, rest = rule.partition(" ")
    chain = rest.partition(" ")[0]
    if option != "-A" or chain not in table.rules:
        raise BackendError(f"iptables-save: cannot read the line {line!r}")
    table.rules[chain].append(SavedRule(chain, rule, packets, octets))
