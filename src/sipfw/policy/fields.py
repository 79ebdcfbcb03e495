"""Which fields a policy has, and what each of them holds, read from its models."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, get_args, get_origin

from pydantic import BaseModel

from sipfw.policy.model import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.policy.yaml_tree import Path


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


def is_list_at(path: Path) -> bool:
    """Tell whether the field at a path takes a list."""
    model = model_at(path[:-1])
    return model is not None and holds_list(annotations_of(model).get(str(path[-1])))
