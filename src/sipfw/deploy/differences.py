"""What differs between two generations, for people: fields of the policy, rules, sets, settings."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sipfw.deploy.stored_content import bare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sipfw.deploy.stored_content import StoredContent

_POLICY = "policy"
# What says most about an item of a list in one word or two.
_TELLING = ("signalling", "url", "file")
# More changes than these are counted in a summary.
_SUMMED = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that comes (`before` is None), goes (`after` is None), or changes."""

    kind: str
    what: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        what = self.what if self.kind == _POLICY else f"{self.kind} {self.what}"
        if self.before is None:
            return f"+ {what}: {self.after}"
        if self.after is None:
            return f"- {what}: {self.before}"
        return f"~ {what}: {self.before} -> {self.after}"


def differences(before: StoredContent | None, after: StoredContent | None) -> list[Difference]:
    """Return what `after` has that `before` has not, and the reverse; None is no firewall."""
    return [
        *ordered_differences(before, after),
        *_compared("rule", _rules(before), _rules(after)),
        *_compared("set", _sets(before), _sets(after)),
        *_compared("setting", _settings(before), _settings(after)),
    ]


def ordered_differences(
    before: StoredContent | None, after: StoredContent | None
) -> list[Difference]:
    """Return only what an operator has ordered: in the policy, or by the choice of a backend."""
    return [
        *_compared("backend", _backend(before), _backend(after)),
        *_compared(_POLICY, _policy(before, after), _policy(after, before)),
    ]


def summary(found: list[Difference]) -> str:
    """Say in one line what was changed: the words of the policy, or counts where it is the same."""
    told = [item for item in found if item.kind in {_POLICY, "backend"}]
    if told:
        more = len(told) - _SUMMED
        words = [str(item) for item in told[:_SUMMED]]
        return "; ".join([*words, f"and {more} more"] if more > 0 else words)
    counts = Counter(item.kind for item in found)
    if not counts:
        return "nothing"
    return ", ".join(f"{kind}s changed: {count}" for kind, count in counts.items())


_Pairs = list[tuple[str, str]]


def _compared(kind: str, before: _Pairs, after: _Pairs) -> Iterator[Difference]:
    gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
    for what in dict.fromkeys(what for what, _ in (*gone, *come)):
        old = [text for name, text in gone.elements() if name == what]
        new = [text for name, text in come.elements() if name == what]
        if len(old) == len(new) == 1:
            yield Difference(kind, _printable(what), _printable(old[0]), _printable(new[0]))
        else:
            yield from (Difference(kind, _printable(what), _printable(t), None) for t in old)
            yield from (Difference(kind, _printable(what), None, _printable(t)) for t in new)


def _backend(content: StoredContent | None) -> _Pairs:
    if content is None:
        return []
    return [("sets" if content.ipset else "no sets", "yes"), ("name", content.backend)]


def _policy(content: StoredContent | None, other: StoredContent | None) -> _Pairs:
    """Return the fields; what is named and not in `other` is one of them, with all that it has."""
    if content is None:
        return []
    known = frozenset() if other is None else frozenset(_named(other.policy, ""))
    return list(_leaves(content.policy, "", known))


def _leaves(value: Any, path: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, _below(path, name), known)
    elif isinstance(value, list):
        for item in value:
            if not _has_name(item):
                yield path, _text(item)
            elif (place := _below(path, item["name"])) in known:
                yield from _leaves(item, place, known)
            else:
                yield place, _item_text(item)
    elif value is not None:
        yield path, _text(value)


def _named(value: Any, path: str) -> Iterator[str]:
    """Return where the items of lists stand that have a name."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _named(item, _below(path, name))
    elif isinstance(value, list):
        yield from (_below(path, item["name"]) for item in value if _has_name(item))


def _has_name(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _item_text(item: Mapping[str, Any]) -> str:
    """Write an item of a list that has a name: what it is first, then what else is set."""
    told = [item[name] for name in _TELLING if item.get(name)]
    rest = {name: v for name, v in item.items() if v and name not in {"name", *_TELLING}}
    texts = [", ".join(map(_text, t)) if isinstance(t, list) else _text(t) for t in told]
    return " ".join([*texts, *(f"{name}={_text(value)}" for name, value in rest.items())])


def _rules(content: StoredContent | None) -> _Pairs:
    if content is None:
        return []
    found = []
    for chain in bare(content.ruleset)["chains"]:
        for rule in chain["rules"]:
            body = {name: item for name, item in rule.items() if name not in {"id", "summary"}}
            found.append((f"{chain['name']} {rule['id']}", f"{rule['summary']} [{_mark(body)}]"))
    return found


def _sets(content: StoredContent | None) -> _Pairs:
    """Return the sets without their members, of which the policy tells."""
    if content is None:
        return []
    shown = ("kind", "timeout", "size", "counted", "prefix")
    return [
        (item["name"], _text({name: item.get(name) for name in shown}))
        for item in content.ruleset["sets"]
    ]


def _settings(content: StoredContent | None) -> _Pairs:
    if content is None:
        return []
    return [(item["name"], _text(item["value"])) for item in content.ruleset["sysctls"]]


def _mark(body: Any) -> str:
    """Tell rules of one summary apart: what they match may be a text of a kilobyte."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:6]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
