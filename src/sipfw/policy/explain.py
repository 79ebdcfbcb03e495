"""Every value of a merged policy with its origin, for `check --explain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sipfw.policy.fields import field_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.policy.load import LoadedPolicy
    from sipfw.policy.yaml_tree import Path


def explained(loaded: LoadedPolicy) -> list[tuple[str, str, str]]:
    """Return (field, value, origin) for every value, in the order of the policy's sections."""
    data = loaded.policy.model_dump(mode="json", by_alias=True)
    return [
        (field_name(path, data), json.dumps(value), str(loaded.origins.nearest_written(path)))
        for path, value in _leaves(data, ())
    ]


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value
