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

# What an entry cannot do without, and what no check across fields finds fault with: so the other
# faults of the entry come to light. `.invalid` is nobody's (RFC 2606, 2).
_STAND_INS: dict[tuple[str, str], object] = {
    ("trusted_peers", "signalling"): ["unread.invalid"],
    ("feeds", "url"): "https://unread.invalid/",
    ("feeds", "file"): "/unread",
}
_NAMED = ("trusted_peers", "feeds")


def salvage(data: dict[str, Any], origins: Origins, error: ValidationError) -> Policy | None:
    """Return the policy without its faulty values, None where too little is left.

    `origins` is adjusted to the shortened lists; use it for what is found in the result only.
    Entries keep their names, also those that are none.
    """
    rest = copy.deepcopy(data)
    names: dict[str, str] = {}
    for _ in range(_ROUNDS):
        faults = {(item["loc"], item["type"]) for item in error.errors()}
        replaced = {path for path, kind in faults if _stood_in(rest, path, kind, names)}
        # What was wrong inside a value that is replaced has gone with it.
        paths = {_removable(*item) for item in faults if item[0][:3] not in replaced}
        if len(paths) > _MOST_FAULTS or () in paths:
            return None
        for path in sorted(paths, key=_order, reverse=True):
            _remove(rest, path, origins)
        try:
            return _named(Policy.model_validate(rest), names)
        except ValidationError as following:
            error = following
    return None


def _stood_in(data: Any, path: Path, kind: str, names: dict[str, str]) -> bool:
    """Put a stand-in in the place of a faulty value, where there is one for it."""
    match path:
        case (str(section), int(index), str(field)) if kind != "extra_forbidden":
            entry = data[section][index]
        case _:
            return False
    if not isinstance(entry, dict):
        return False
    if field == "name" and section in _NAMED:
        name = entry.get("name")
        stand_in = f"unread-{len(names)}"
        shown = isinstance(name, str) and name.isprintable()
        names[stand_in] = str(name) if shown else f"[{index + 1}]"
        entry["name"] = stand_in
        return True
    if (section, field) in _STAND_INS:
        entry[field] = copy.copy(_STAND_INS[section, field])
        return True
    return False


def _named(policy: Policy, names: dict[str, str]) -> Policy:
    """Give entries their own names back, for messages to call them by."""
    if not names:
        return policy
    entries = {
        section: tuple(
            entry.model_copy(update={"name": names.get(entry.name, entry.name)})
            for entry in getattr(policy, section)
        )
        for section in _NAMED
    }
    return policy.model_copy(update=entries)


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
