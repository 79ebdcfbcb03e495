"""Which fields a policy has, and what each of them holds, read from its models."""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from sipfw.policy.model import Policy
from sipfw.policy.quantities import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.policy.yaml_tree import Path

# One letter too few, too many or wrong in a word of usual length.
_SLIP = 0.85


@lru_cache
def annotations_of(model: type[BaseModel]) -> dict[str, object]:
    """Return what each field holds, by the name that a file may use for it."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def field_names(model: type[BaseModel]) -> Iterator[str]:
    """List the names that a file may use for a model's fields."""
    yield from annotations_of(model)


def holds_list(annotation: object) -> bool:
    """Tell whether a field takes a list."""
    return get_origin(annotation) is tuple


def section_in(annotation: object) -> type[BaseModel] | None:
    """Return the section that a field holds, or a list of which it holds; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := section_in(arg))), None)


def model_at(path: Path) -> type[BaseModel] | None:
    """Return the section at a path, None where there is none."""
    model: type[BaseModel] | None = Policy
    for step in path:
        if isinstance(step, int) or model is None:
            continue
        model = section_in(annotations_of(model).get(step))
    return model


def field_name(path: Path, data: dict[str, Any]) -> str:
    """Write a path with list items by their name (`trusted_peers.carrier-a`), not their index."""
    parts: list[str] = []
    value: Any = data
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(step, int):
            name = value.get("name") if isinstance(value, dict) else None
            # A list of plain values is named by its field: the message quotes the value itself.
            if isinstance(name, str) and name.isprintable():
                parts.append(name)
            elif isinstance(value, dict):
                parts.append(f"[{step + 1}]")
        else:
            parts.append(str(step) if str(step).isprintable() else shown(str(step)))
    return ".".join(parts)


def is_slip(name: str, near: str) -> bool:
    """Tell whether a key has slipped, so that no other word can be meant."""
    return SequenceMatcher(None, name.lower(), near).ratio() > _SLIP


def is_list_at(path: Path) -> bool:
    """Tell whether the field at a path takes a list."""
    model = model_at(path[:-1])
    return model is not None and holds_list(annotations_of(model).get(str(path[-1])))
