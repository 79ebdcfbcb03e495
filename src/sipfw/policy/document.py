"""Reads a file that is no policy with the same care: every fault, and its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from sipfw.diagnostics import Diagnostic, Location
from sipfw.errors import PolicyError
from sipfw.policy import messages
from sipfw.policy.merge import Layer, merge
from sipfw.policy.section import Section
from sipfw.policy.yaml_tree import MAX_BYTES, read_tree

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.policy.merge import Origins

T = TypeVar("T", bound=Section)


def bytes_of(path: Path) -> bytes:
    """Read a file that may be anything. Raises PolicyError where it cannot be read."""
    try:
        with path.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot be read: {(error.strerror or str(error)).lower()}"
        raise PolicyError([Diagnostic(message, location=Location(str(path)))]) from error


def read_as(model: type[T], raw: bytes, name: str) -> tuple[T, Origins]:
    """Read YAML as `model`, with the line of every value. Raises PolicyError with all faults."""
    tree = read_tree(raw, name)
    data, origins = merge([Layer(name, tree)])
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        faults = messages.diagnostics(error, data, origins, tree.unread)
        raise PolicyError([*tree.faults, *faults]) from error
    if tree.faults:
        raise PolicyError(tree.faults)
    return found, origins


def schema_of(model: type[Section], title: str) -> dict[str, Any]:
    """Return the JSON Schema of a file that is read as `model`."""
    schema = model.model_json_schema()
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
