"""Goes on checking past the first kind of fault, so that an operator sees all of them at once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sipfw.policy.model import Policy

if TYPE_CHECKING:
    from sipfw.policy.merge import Origins
    from sipfw.policy.yaml_tree import Path

# Each round removes what the last one found wrong; removing may leave a parent incomplete.
_ROUNDS = 8

# Re-indexing a list costs its length, and nobody reads more faults than this.
_MOST_FAULTS = 200


def salvage(data: dict[str, Any], origins: Origins, error: ValidationError) -> Policy | None:
    """Return the policy without its faulty values, None where too little is left.

    `origins` is adjusted to the shortened lists; use it for what is found in the result only.
    """
    rest = copy.deepcopy(data)
    for _ in range(_ROUNDS):
        paths = sorted({_removable(item["loc"], item["type"]) for item in error.errors()}, key=str)
        if len(paths) > _MOST_FAULTS or () in paths:
            return None
        for path in sorted(paths, key=_order, reverse=True):
            _remove(rest, path, origins)
        try:
            return Policy.model_validate(rest)
        except ValidationError as following:
            error = following
    return None


def _removable(path: Path, kind: str) -> Path:
    """A missing or emptied value condemns the entry that lacks it."""
    return path[:-1] if kind in {"missing", "too_short"} else path


def _order(path: Path) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, step) if isinstance(step, int) else (1, step) for step in path)


def _remove(data: Any, path: Path, origins: Origins) -> None:
    place = data
    try:
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
    except (KeyError, IndexError, TypeError):
        # Another fault has already taken the parent away.
        return
    if isinstance(path[-1], int):
        origins.close_gap(path[:-1], path[-1])
