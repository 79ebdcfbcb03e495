"""The `nft` program on our one table: check and load text, list it, and read the listing.

Reads `table inet sipfw` only: nft 1.0.6 writes broken JSON for a ruleset in which any foreign
table has flags. What a rule means is the listing's own words; counters and handles are left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sipfw.compare.live import LiveRule, LiveSetState
from sipfw.errors import BackendError
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.lower.naming import split_comment
from sipfw.lower.nftables_hooks import written_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sipfw.host.runner import Completed, Runner

Json: TypeAlias = Any
NftObject: TypeAlias = "dict[str, Json]"

_FAMILY, _TABLE = "inet", "sipfw"
# 100,000 elements of an interval set take 1.7 s; the deadline is for a hung kernel.
_TIMEOUT = 60.0
_LOCATED = re.compile(
    r"^(?:/dev/stdin|-|<stdin>):(?P<line>\d+):(?P<column>\d+)-\d+: (?:Error: )?(?P<text>.*)$"
)
_MAX_ERRORS = 5
_MAX_QUOTE = 100
# What nft says about xt expressions in an inet table, harmless; the text rules are such.
_NOISE = re.compile(r"^libxtables: unhandled NFPROTO|^# Warning: table .* is managed by ")
_WHOLE = ("nft", "-j", "list", "table", _FAMILY, _TABLE)
# libnftables-json(5): the metainfo object comes first.
_LISTED_VERSION = re.compile(r'"version": "(\d+(?:\.\d+)*)"')
_DORMANT = re.compile(r"^\tflags .*\bdormant\b", re.MULTILINE)
_OUR_TABLE = re.compile(rf"^table {_FAMILY} {_TABLE} \{{\n.*?^\}}\n", re.MULTILINE | re.DOTALL)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
# Within a string of JSON its quotes would be escaped.
_COUNTER = re.compile(r'"counter":\{[^{}]*\}')
_VERSION = re.compile(r"\bv(\d+(?:\.\d+)+)")


class NftTool:
    """Runs `nft` where the runner runs things."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def version(self) -> tuple[int, ...]:
        """Return nft's version, (1, 0, 6) for example; a listing that is known says it, too."""
        known = isinstance(self._runner, HostSnapshot) and self._runner.knows(_WHOLE)
        done = self._nft(*_WHOLE[1:]) if known else self._nft("--version")
        found = (_LISTED_VERSION if known else _VERSION).search(done.stdout)
        if done.returncode != 0 or found is None:
            raise BackendError(
                f"nft --version: cannot read {(done.stdout + done.stderr).strip()!r}"
            )
        return tuple(int(part) for part in found[1].split("."))

    def check(self, text: str) -> None:
        """Have nft and the kernel judge the text without loading it."""
        self._feed(text, "-c")

    def apply(self, text: str) -> None:
        """Load the text as one transaction: on an error nothing of it is live."""
        self._feed(text)

    def list_table(self, *, elements: bool = True) -> list[NftObject] | None:
        """Return the objects of our table as nft's JSON has them, None when there is no table."""
        done = self._nft("-j", *self._terse(elements), "list", "table", _FAMILY, _TABLE)
        if done.returncode != 0:
            said = _said(done)
            if "No such file or directory" in said:
                return None
            raise BackendError(f"nft: cannot list table {_FAMILY} {_TABLE}: {said}")
        return _objects(done)

    def list_text(self, *, elements: bool = True) -> str | None:
        """Return our table as nft writes it, None when there is no table."""
        if not elements:
            return self._list_terse()
        done = self._nft("list", "table", _FAMILY, _TABLE)
        if done.returncode == 0:
            return done.stdout
        said = _said(done)
        if "No such file or directory" in said:
            return None
        raise BackendError(f"nft: cannot list table {_FAMILY} {_TABLE}: {said}")

    def list_elements(self, name: str) -> list[NftObject]:
        """Return the elements of one of our sets."""
        objects = self.list_set(name)
        return [each for item in objects for each in item.get("set", {}).get("elem", ())]

    def list_set(self, name: str) -> list[NftObject]:
        """Return one of our sets with its elements; those of other sets are not read."""
        done = self._nft("-j", "list", "set", _FAMILY, _TABLE, name)
        if done.returncode != 0:
            raise BackendError(f"nft: cannot list set {name}: {_said(done)}")
        return _objects(done)

    def _list_terse(self) -> str | None:
        """List by way of the ruleset: for a single table nft reads all elements nevertheless.

        With 100,000 of them that is 0.7 s instead of 0.01 (nft 1.0.6).
        """
        # In the words of who lists all rules of the host, so that one look serves both.
        done = self._nft("-t", "list", "ruleset")
        if done.returncode != 0:
            raise BackendError(f"nft: cannot list table {_FAMILY} {_TABLE}: {_said(done)}")
        found = _OUR_TABLE.search(done.stdout)
        return None if found is None else found[0]

    def is_dormant(self) -> bool:
        """Tell whether the table is asleep; the JSON of nft 1.0.6 has nonsense for its flags."""
        return _DORMANT.search(self.list_text(elements=False) or "") is not None

    def _feed(self, text: str, *options: str) -> None:
        done = self._nft(*options, "-f", "-", stdin=text)
        if done.returncode != 0:
            raise BackendError(_explained(done, text.split("\n")))

    def _terse(self, elements: bool) -> tuple[str, ...]:
        """Return the option that leaves elements out, unless all is known already."""
        known = isinstance(self._runner, HostSnapshot) and self._runner.knows(_WHOLE)
        return () if elements or known else ("--terse",)

    def _nft(self, *arguments: str, stdin: str = "") -> Completed:
        return self._runner.run(["nft", *arguments], stdin=stdin, timeout=_TIMEOUT)


def _objects(done: Completed) -> list[NftObject]:
    # Comment lines stand before the JSON in some versions.
    plain = "\n".join(line for line in done.stdout.split("\n") if not line.startswith("#"))
    try:
        objects = json.loads(plain)["nftables"]
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"nft: cannot read its listing: {plain[:_MAX_QUOTE]!r}") from error
    return [item for item in objects if "metainfo" not in item]


@dataclass(frozen=True, slots=True)
class ListedChain:
    """A chain; `kind`, `hook`, `priority` and `policy` are None unless it is a base chain."""

    name: str
    rules: tuple[LiveRule, ...]
    kind: str | None = None
    hook: str | None = None
    priority: int | None = None
    policy: str | None = None

    @property
    def base(self) -> str | None:
        """Return the line that hooks it, as a plan has it; None where nothing does."""
        if self.kind is None or self.hook is None or self.priority is None or self.policy is None:
            return None
        return written_line(self.kind, self.hook, self.priority, self.policy)


@dataclass(frozen=True, slots=True)
class NftListing:
    """Our table as it is in the kernel; no packet meets a `dormant` one."""

    chains: Mapping[str, ListedChain]
    sets: Mapping[str, LiveSetState]
    dormant: bool = False


def live_from_json(
    objects: Sequence[NftObject], static_sets: frozenset[str] | None = None
) -> NftListing:
    """Return what the objects of `list_table` say.

    Elements are kept for `static_sets`; without it for every set whose elements do not expire.
    """
    by_kind: dict[str, list[NftObject]] = {}
    for item in objects:
        for kind, value in item.items():
            by_kind.setdefault(kind, []).append(value)
    counters = {item["name"]: item for item in by_kind.get("counter", ())}
    rules: dict[str, list[LiveRule]] = {}
    for rule in by_kind.get("rule", ()):
        rules.setdefault(rule["chain"], []).append(_live_rule(rule, counters))
    chains = {
        chain["name"]: ListedChain(
            name=chain["name"],
            rules=tuple(rules.get(chain["name"], ())),
            kind=chain.get("type"),
            hook=chain.get("hook"),
            priority=chain.get("prio"),
            policy=chain.get("policy"),
        )
        for chain in by_kind.get("chain", ())
    }
    sets = {item["name"]: _live_set(item, static_sets) for item in by_kind.get("set", ())}
    return NftListing(chains, sets)


def _live_rule(rule: NftObject, counters: Mapping[str, NftObject]) -> LiveRule:
    ours = split_comment(rule.get("comment", ""))
    found = [each["counter"] for each in rule["expr"] if each.get("counter") is not None]
    counter = found[0] if found else {}
    values: NftObject = counters.get(counter, {}) if isinstance(counter, str) else counter
    return LiveRule(
        rule_id=None if ours is None else ours[0],
        digest=None if ours is None else ours[1],
        packets=values.get("packets", 0),
        bytes=values.get("bytes", 0),
        line=_canonical(rule["expr"]),
        counted=bool(found),
    )


def _canonical(value: Json) -> str:
    """Return the expression with every anonymous counter at no value, at any depth."""
    return _COUNTER.sub('"counter":null', _ENCODER.encode(value))


def _live_set(item: NftObject, static_sets: frozenset[str] | None) -> LiveSetState:
    elements = item.get("elem", [])
    flags = item.get("flags", [])
    if static_sets is None:
        static = not {"timeout", "dynamic"} & {*flags} and "timeout" not in item
    else:
        static = item["name"] in static_sets
    return LiveSetState(
        name=item["name"],
        type=" . ".join([item["type"]] if isinstance(item["type"], str) else item["type"]),
        header=tuple(_set_header(item)),
        entries=len(elements),
        elements=frozenset(_element(each) for each in elements) if static else None,
    )


def _set_header(item: NftObject) -> Iterator[str]:
    """Yield the words of a set's options; nft 1.0.6 keeps the flag `dynamic` out of its JSON."""
    flags = item.get("flags", [])
    if flags:
        yield "flags"
        yield ",".join(sorted([flags] if isinstance(flags, str) else flags))
    for option in ("timeout", "gc-interval", "size", "policy"):
        if option in item:
            yield option
            yield str(item[option])
    if item.get("auto-merge"):
        yield "auto-merge"
    for statement in item.get("stmt", ()):
        yield from sorted(statement)


def _element(value: Json) -> str:
    """Return an element as nft's text form has it, without timeout, counter and comment."""
    match value:
        case {"elem": {"val": inner}}:
            return _element(inner)
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{_element(first)}-{_element(last)}"
        case {"concat": parts}:
            return " . ".join(_element(part) for part in parts)
        case str() | int():
            return str(value)
    raise BackendError(f"nft: cannot read the set element {json.dumps(value)}")


def _said(done: Completed) -> str:
    """Return nft's messages on one line, without the harmless ones."""
    lines = [line.strip() for line in done.stderr.split("\n")]
    kept = [line for line in lines if line.strip("^~ ") and not _NOISE.match(line)]
    if done.returncode < 0:
        kept.append(f"ended by signal {-done.returncode}")
    return " ".join(kept) or f"exit status {done.returncode}"


def _explained(done: Completed, lines: Sequence[str]) -> str:
    """Return nft's errors with the input lines that they cite."""
    errors = []
    for text in done.stderr.split("\n"):
        found = _LOCATED.match(text)
        if found is not None and 1 <= int(found["line"]) <= len(lines):
            quote = _quote(lines[int(found["line"]) - 1], int(found["column"]))
            errors.append(f"line {found['line']}: {found['text']}: {quote}")
    if not errors:
        return f"nft: {_said(done)}"
    more = len(errors) - _MAX_ERRORS
    shown = errors[:_MAX_ERRORS] + ([f"and {more} more"] if more > 0 else [])
    return "nft: " + "\n     ".join(shown)


def _quote(line: str, column: int) -> str:
    """Return the line, or what stands around the column of a long one."""
    if len(line) <= _MAX_QUOTE:
        return line.strip()
    start = max(0, min(column - 1 - _MAX_QUOTE // 2, len(line) - _MAX_QUOTE))
    return f"... {line[start : start + _MAX_QUOTE].strip()} ..."
