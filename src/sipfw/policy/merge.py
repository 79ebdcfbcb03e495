"""Lays policy files over one another and remembers where every value came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sipfw.diagnostics import Location

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.policy.yaml_tree import Path, Tree

BUILT_IN = Location("built-in")


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of values; `name` is what an operator calls it (a file, `profile wholesale`)."""

    name: str
    tree: Tree

    def location(self, path: Path) -> Location:
        """Return the line of the value, or of its nearest parent that has one."""
        for length in range(len(path), -1, -1):
            line = self.tree.lines.get(path[:length])
            if line is not None:
                return Location(self.name, line)
        return Location(self.name)


class Origins:
    """Where each value of a merged policy came from."""

    def __init__(self) -> None:
        self._locations: dict[Path, Location] = {}

    def record(self, path: Path, location: Location) -> None:
        """Note the origin of one value."""
        self._locations[path] = location

    def forget_below(self, path: Path) -> None:
        """Drop what was noted for a value that is replaced as a whole."""
        size = len(path)
        for known in [item for item in self._locations if item[:size] == path]:
            del self._locations[known]

    def close_gap(self, path: Path, index: int) -> None:
        """Follow the removal of one list item: the later ones move up by one."""
        size = len(path)
        moved: dict[Path, Location] = {}
        for known, location in self._locations.items():
            step = known[size] if known[:size] == path and len(known) > size else None
            if not isinstance(step, int) or step < index:
                moved[known] = location
            elif step > index:
                moved[(*path, step - 1, *known[size + 1 :])] = location
        self._locations = moved

    def nearest_written(self, path: Path) -> Location:
        """Return the origin of exactly this value; one that no layer wrote is built in."""
        return self._locations.get(path, BUILT_IN)

    def nearest(self, path: Path) -> Location:
        """Return the origin of a value or of the nearest parent that was written somewhere."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._locations:
                return self._locations[path[:length]]
        return BUILT_IN


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], Origins]:
    """Lay each layer over those before it: mappings merge, everything else replaces."""
    origins = Origins()
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _overlay(merged, layer.tree.data, (), layer, origins)
    return merged, origins


def _overlay(
    below: dict[str, Any], above: dict[str, Any], path: Path, layer: Layer, origins: Origins
) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        child = (*path, key)
        under = below.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            result[key] = _overlay(under, value, child, layer, origins)
            origins.record(child, layer.location(child))
        else:
            origins.forget_below(child)
            _record_all(value, child, layer, origins)
            result[key] = value
    return result


def _record_all(value: object, path: Path, layer: Layer, origins: Origins) -> None:
    origins.record(path, layer.location(path))
    if isinstance(value, dict):
        for key, item in value.items():
            _record_all(item, (*path, key), layer, origins)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _record_all(item, (*path, index), layer, origins)
