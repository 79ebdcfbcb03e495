"""Turns pydantic's findings into sipfw's diagnostics: one place, one wording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.diagnostics import Diagnostic
from sipfw.policy.fields import field_name, field_names, is_slip, model_at
from sipfw.policy.quantities import shown
from sipfw.policy.synonyms import line_elsewhere, line_instead
from sipfw.words import nearest

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from sipfw.policy.merge import Origins
    from sipfw.policy.yaml_tree import Path


def diagnostics(
    error: ValidationError, data: dict[str, Any], origins: Origins, unread: Collection[Path]
) -> list[Diagnostic]:
    """Describe every finding with its place in the file, but for values that are `unread`."""
    found = error.errors(include_url=False)
    return [
        _one(item, data, origins)
        for item in found
        if not _is_consequence(item, found) and not _is_below(item["loc"], unread)
    ]


def _is_below(path: Path, unread: Collection[Path]) -> bool:
    return any(path[:length] in unread for length in range(1, len(path) + 1))


def _is_consequence(item: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """A list whose every entry is faulty counts as empty to pydantic: not worth saying too."""
    path = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(path) and other["loc"][: len(path)] == path for other in found
    )


def _one(item: ErrorDetails, data: dict[str, Any], origins: Origins) -> Diagnostic:
    path: Path = item["loc"]
    return Diagnostic(_text(item, path), field_name(path, data), origins.nearest(path))


def _text(item: ErrorDetails, path: Path) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if several := _several(value, path):
        return f"{shown(value)} is one text; write {several}"
    match kind:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return _unknown_field(path, value)
        case "missing":
            return f"is missing; every {_last_name(path[:-1])} needs `{path[-1]}`"
        case "enum" | "literal_error":
            return f"{shown(value)} is not known; write {context['expected']}"
        case "bool_type" | "bool_parsing":
            return f"{shown(value)} is not true or false; write true or false"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"{shown(value)} is not a whole number"
        case "greater_than_equal":
            return f"{shown(value)} is too small; write at least {context['ge']}"
        case "less_than_equal":
            return f"{shown(value)} is too large; write at most {context['le']}"
        case "model_type" if path[0] == "trusted_peers" and len(path) <= 2:
            return f"{shown(value)} is no peer; write {{name: carrier-a, signalling: 203.0.113.10}}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{shown(value)} is not a group of fields; write `field: value` lines below it"
        case "tuple_type" | "list_type":
            return f"{shown(value)} is not a list; write one value, or several as [one, two]"
        case "string_type":
            return f"{shown(value)} is not a text; write it in quotes"
        case "too_short":
            return "is empty; write at least one entry"
        case "too_long":
            return f"has more than {context['max_length']} entries; split the peer in two"
        case _:
            return f"{shown(value)}: {item['msg'].lower()}"


def _several(value: object, path: Path) -> str | None:
    """Write `80, 443` as the list that it was meant as; only a signature may hold a comma."""
    is_entry = bool(path) and isinstance(path[-1], int)
    if not (is_entry and isinstance(value, str) and "," in value and "user_agents" not in path):
        return None
    return shown(f"[{', '.join(part.strip() for part in value.split(','))}]").strip("'")


def _last_name(path: Path) -> str:
    names = [str(part) for part in path if isinstance(part, str)]
    return f"entry of {names[-1]}" if names else "policy"


def _unknown_field(path: Path, value: object) -> str:
    name = str(path[-1])
    model = model_at(path[:-1])
    known = [] if model is None else sorted(field_names(model))
    near = nearest(name, known)
    section = [step for step in path[:-1] if isinstance(step, str)]
    instead = line_instead(section, name, value)
    # A slip of a key is nearer than another tool's word.
    if instead is not None and not (near and is_slip(name, near)):
        return f"unknown field; write `{instead}`"
    if near:
        return f"unknown field; did you mean `{near}`?"
    if elsewhere := line_elsewhere(name, value):
        return f"unknown field; write `{elsewhere}`"
    return f"unknown field; known here: {', '.join(known)}" if known else "unknown field"
