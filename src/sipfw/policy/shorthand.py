"""What an operator may write short, written out: one value where a list is meant.

Done on each file before they are merged, so that all that follows sees lists only, and the line of
each entry stays known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sipfw.policy.fields import annotations_of, holds_list, section_in
from sipfw.policy.model import Policy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sipfw.policy.yaml_tree import Path, Tree


def written_out(tree: Tree) -> Tree:
    """Return the tree with every short form in its long one; `lines` follow the values."""
    moves = _Moves()
    data = _section(tree.data, Policy, (), moves)
    return replace(tree, data=data, lines=moves.applied(tree.lines))


@dataclass(frozen=True, slots=True)
class _Moves:
    """Where values that got a new place stood before."""

    places: dict[Path, Path] = field(default_factory=dict)

    def note(self, before: Path, now: Path) -> None:
        self.places[before] = now

    def applied(self, lines: dict[Path, int]) -> dict[Path, int]:
        """Give each line the new place of its value; parents that are new stand where it does."""
        if not self.places:
            return lines
        found: dict[Path, int] = {}
        for path, line in lines.items():
            now = self._now(path)
            found[now] = line
            for length in range(len(path), len(now)) if now != path else ():
                found.setdefault(now[:length], line)
        return found

    def _now(self, path: Path) -> Path:
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return (*self.places[path[:length]], *path[length:])
        return path


def _section(
    data: dict[str, Any], model: type[BaseModel], path: Path, moves: _Moves
) -> dict[str, Any]:
    fields = annotations_of(model)
    return {
        name: _value(value, fields[name], (*path, name), moves) if name in fields else value
        for name, value in data.items()
    }


def _value(value: Any, annotation: object, path: Path, moves: _Moves) -> Any:
    section = section_in(annotation)
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
