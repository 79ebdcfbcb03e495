"""What an operator may write short, written out: one value where a list is meant, bare peers.

Done on each file before they are merged, so that all that follows sees lists only, and the line of
each entry stays known.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sipfw.diagnostics import Diagnostic, Location
from sipfw.policy.fields import annotations_of, field_name, holds_list, is_slip, section_in
from sipfw.policy.model import Peer, Policy
from sipfw.words import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

    from sipfw.policy.yaml_tree import Path, Tree

# As long as a name may be; of a longer address so much and a digest.
_LONGEST_NAME, _KEPT = 31, 22


def written_out(tree: Tree, name: str) -> Tree:
    """Return the tree with every short form in its long one; `lines` follow the values.

    A field whose name has slipped is a fault of the tree `name`, and is read as what it was to be,
    so that what it holds is checked at once.
    """
    moves = _Moves()
    data = _section(tree.data, Policy, (), moves)
    unread = frozenset(moves.now(path) for path in tree.unread)
    lines = moves.applied(tree.lines)
    slips = [
        Diagnostic(
            f"unknown field; did you mean `{meant}`?",
            field_name(path, data),
            Location(name, lines.get(moves.now(path))),
        )
        for path, meant in moves.slips.items()
    ]
    return replace(
        tree,
        data=data,
        lines=lines,
        faults=(*tree.faults, *slips),
        unread=unread,
    )


@dataclass(frozen=True, slots=True)
class _Moves:
    """Where values that got a new place stood before, and which of them only by a slip."""

    places: dict[Path, Path] = field(default_factory=dict)
    slips: dict[Path, str] = field(default_factory=dict)

    def note(self, before: Path, now: Path) -> None:
        """Remember that what stood at one path, and below it, stands at the other."""
        self.places[before] = now

    def applied(self, lines: dict[Path, int]) -> dict[Path, int]:
        """Give each line the new place of its value; parents that are new stand where it does."""
        if not self.places:
            return lines
        found: dict[Path, int] = {}
        for path, line in lines.items():
            now = self.now(path)
            found[now] = line
            for length in range(len(path), len(now)) if now != path else ():
                found.setdefault(now[:length], line)
        return found

    def now(self, path: Path) -> Path:
        """Return the new place of what stood at a path; its parents may have moved before it."""
        for _ in range(len(path) + 1):
            moved = self._once(path)
            if moved == path:
                break
            path = moved
        return path

    def _once(self, path: Path) -> Path:
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return (*self.places[path[:length]], *path[length:])
        return path


def _section(
    data: dict[str, Any], model: type[BaseModel], path: Path, moves: _Moves
) -> dict[str, Any]:
    fields = annotations_of(model)
    found: dict[str, Any] = {}
    for written, value in data.items():
        name = written
        meant = None if written in fields else _slipped(written, fields)
        if meant is not None and meant not in data and meant not in found:
            name = meant
            moves.note((*path, written), (*path, name))
            moves.slips[*path, written] = name
        inside = name in fields
        found[name] = _value(value, fields[name], (*path, name), moves) if inside else value
    return found


def _slipped(name: str, fields: Iterable[str]) -> str | None:
    near = nearest(name, fields)
    return near if near is not None and is_slip(name, near) else None


def _value(value: Any, annotation: object, path: Path, moves: _Moves) -> Any:
    section = section_in(annotation)
    if section is Peer:
        value = _peers(value, path, moves)
    if holds_list(annotation):
        return _list(value, section, path, moves)
    if section is not None and isinstance(value, dict):
        return _section(value, section, path, moves)
    return value


def _list(value: Any, section: type[BaseModel] | None, path: Path, moves: _Moves) -> Any:
    if section is None:
        # Nothing written is not one value, and a group of fields is no plain one.
        return value if value is None or isinstance(value, list | dict) else [value]
    if isinstance(value, dict):
        for name in value:
            moves.note((*path, name), (*path, 0, name))
        value = [value]
    if not isinstance(value, list):
        return value
    return [
        _section(item, section, (*path, index), moves) if isinstance(item, dict) else item
        for index, item in enumerate(value)
    ]


def _peers(value: Any, path: Path, moves: _Moves) -> Any:
    """Write out `{carrier-a: 203.0.113.10}`, and addresses where peers are meant."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        if {"name", "signalling"} & set(value):
            return value
        return list(_named(value, path, (), moves))
    if not isinstance(value, list):
        return value
    found: list[Any] = []
    for index, item in enumerate(value):
        if isinstance(item, str):
            found.append({"name": name_of_address(item), "signalling": item})
        elif isinstance(item, dict) and _is_named(item):
            found += _named(item, path, (index,), moves)
        else:
            found.append(item)
    return found


def _is_named(item: dict[str, Any]) -> bool:
    """Tell `carrier-a: 203.0.113.10` from an entry with one field, also where that has slipped."""
    fields = annotations_of(Peer)
    return len(item) == 1 and not any(name in fields or _slipped(name, fields) for name in item)


def _named(
    peers: dict[str, Any], path: Path, place: tuple[()] | tuple[int], moves: _Moves
) -> Iterator[dict[str, Any]]:
    """Yield the peers of a mapping by name; `place` is its own place where it stands in a list."""
    for index, (name, value) in enumerate(peers.items()):
        now: Path = (*path, *(place or (index,)))
        if isinstance(value, dict):
            moves.note((*path, *place, name), now)
            yield {"name": name, **value}
        elif value is None:
            moves.note((*path, *place, name), now)
            yield {"name": name}
        else:
            moves.note((*path, *place, name), (*now, "signalling"))
            yield {"name": name, "signalling": value}


def name_of_address(address: str) -> str:
    """Make a name of an address: `203-0-113-10`, the same whatever else is in the file."""
    name = re.sub(r"[^a-z0-9]+", "-", address.lower()).strip("-") or "peer"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_KEPT]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
