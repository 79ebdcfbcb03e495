"""YAML text to plain data plus the line of every value. Knows nothing of policies.

Scalars follow the YAML 1.2 core schema: `22:22` stays text (YAML 1.1 reads it as 1342) and `no`
is not false. Anchors, aliases, tags and deep nesting are refused: a policy needs none of them,
and each is a way to make a small file expensive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from sipfw.diagnostics import Diagnostic, Location
from sipfw.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 24

_INT = re.compile(r"^[-+]?[0-9]+$|^0x[0-9a-fA-F]+$|^0o[0-7]+$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_MAX_INT_TEXT = 30
# Those of YAML 1.1, by which the parser counts lines.
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_INDENT = re.compile(r"^[ \t]*")
_INDENTING_TAB = re.compile(r"^ *\t")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Tree:
    """Data of one file and where each path of it stands.

    `faults` do not keep the rest from being checked: an anchor, a tag, a field given twice. What
    stands at a path in `unread` is not what was meant, and deserves no second complaint.
    """

    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    faults: tuple[Diagnostic, ...] = ()
    unread: frozenset[Path] = frozenset()


def read_tree(raw: bytes, name: str) -> Tree:
    """Parse one YAML document whose top is a mapping.

    Raises PolicyError where nothing can be read; lesser faults are in the tree.
    """
    text = _decode(raw, name)
    reader = _Reader(name)
    try:
        data = reader.document(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        return _without_tabs(text, name, error)
    except yaml.YAMLError as error:
        message = f"not YAML: {str(error).splitlines()[0]}"
        raise PolicyError([Diagnostic(message, location=Location(name))]) from error
    return _tree(data, reader)


def _tree(data: Any, reader: _Reader) -> Tree:
    if not isinstance(data, dict):
        what = "empty" if data is None else "not a mapping of fields"
        if not reader.faults:
            reader.fault(1, f"the policy is {what}; start it with `profile: default`")
        raise PolicyError(reader.faults)
    return Tree(data, reader.lines, tuple(reader.faults), frozenset(reader.unread))


def _without_tabs(text: str, name: str, error: yaml.MarkedYAMLError) -> Tree:
    """Name each TAB that indents, and read on as if it were two blanks.

    Raises PolicyError where no TAB is to blame, or the rest is no YAML either.
    """
    lines = [*_LINE_BREAK.split(text), ""]
    end = len(lines) if error.problem_mark is None else error.problem_mark.line + 1
    if not any(_INDENTING_TAB.match(line) for line in lines[:end]):
        raise PolicyError([_syntax(error, lines, name)]) from error
    faults = [
        Diagnostic(_tab_at(found.end()), location=Location(name, number))
        for number, line in enumerate(lines, start=1)
        if (found := _INDENTING_TAB.match(line))
    ]
    mended = "\n".join(_INDENT.sub(lambda at: at[0].replace("\t", "  "), line) for line in lines)
    reader = _Reader(name)
    try:
        data = reader.document(yaml.parse(mended, Loader=_Loader))
    except yaml.YAMLError:
        raise PolicyError(faults) from error
    reader.faults[:0] = faults
    return _tree(data, reader)


def _decode(raw: bytes, name: str) -> str:
    location = Location(name)
    if len(raw) > MAX_BYTES:
        message = f"the file has more than {MAX_BYTES // 1024 // 1024} MiB; is it a policy?"
        raise PolicyError([Diagnostic(message, location=location)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        message = "not UTF-8 text; save the policy as plain text"
        raise PolicyError([Diagnostic(message, location=Location(name, line))]) from error
    if "\0" in text:
        raise PolicyError([Diagnostic("a binary file, not a policy", location=location)])
    return text


def _tab_at(column: int) -> str:
    return f"a TAB in column {column}; YAML takes blanks there, write two for it"


def _syntax(error: yaml.MarkedYAMLError, lines: list[str], name: str) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    if mark is not None and lines[mark.line][mark.column : mark.column + 1] == "\t":
        return Diagnostic(_tab_at(mark.column + 1), location=Location(name, line))
    problem = error.problem or error.context or "syntax error"
    return Diagnostic(f"not YAML: {problem}", location=Location(name, line))


class _Reader:
    """Builds data from parser events, so that no recursive composer ever sees the file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path, int] = {}
        self.faults: list[Diagnostic] = []
        self.unread: set[Path] = set()

    def fault(self, line: int, message: str, path: Path = ()) -> None:
        self.faults.append(Diagnostic(message, dotted(path), Location(self.name, line)))

    def document(self, events: Iterator[yaml.Event]) -> Any:
        data = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.fault(_line(event), "a second YAML document; keep one")
                    break
            elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent | yaml.AliasEvent):
                data = self.node(event, events, ())
        return data

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        if len(path) > MAX_DEPTH:
            # Nothing after this can be placed, so stop at once.
            raise PolicyError([Diagnostic("nested too deeply", location=Location(self.name, line))])
        if isinstance(event, yaml.AliasEvent):
            self.fault(line, "YAML aliases are not supported; write the value out", path)
            self.unread.add(path)
            return None
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            raise AssertionError(f"a node cannot start with {event}")
        if event.anchor is not None:
            self.fault(line, "YAML anchors are not supported; remove the &name", path)
        if event.tag is not None:
            self.fault(line, f"YAML tags are not supported; remove {event.tag}", path)
            self.unread.add(path)
        if isinstance(event, yaml.ScalarEvent):
            return core_scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, path)
        return self.mapping(events, path)

    def forget_below(self, path: Path) -> None:
        """Drop the lines of a value whose place another one takes."""
        size = len(path)
        for known in [item for item in self.lines if item[:size] == path and len(item) > size]:
            del self.lines[known]

    def sequence(self, events: Iterator[yaml.Event], path: Path) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, events, (*path, len(items))))
        return items

    def mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                self.fault(line, "a field name must be a plain word", path)
                self.node(event, events, (*path, "?"))
                self.node(next(events), events, (*path, "?"))
                continue
            key = event.value
            child = (*path, key)
            if key in items:
                self.fault(line, f"given twice, first on line {self.lines[child]}; keep one", child)
                self.forget_below(child)
            self.lines.setdefault(child, line)
            items[key] = self.node(next(events), events, child)
        return items


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def core_scalar(text: str) -> bool | int | float | str | None:
    """Read an unquoted scalar by the YAML 1.2 core schema (yaml.org/spec/1.2.2, 10.3.2)."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE"}:
        return True
    if text in {"false", "False", "FALSE"}:
        return False
    # int() itself refuses texts of thousands of digits with its own exception.
    if len(text) <= _MAX_INT_TEXT and _INT.match(text):
        return int(text, 0) if text.startswith(("0x", "0o")) else int(text)
    if len(text) <= _MAX_INT_TEXT and _FLOAT.match(text):
        return float(text)
    return text


def dotted(path: Path) -> str:
    """Write a path for people: `trusted_peers.0.signalling`."""
    return ".".join(str(part) for part in path)
