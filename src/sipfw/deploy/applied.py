"""What is live, on disk: the yardstick of `verify`, and the number of the generation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from sipfw.compare.expected import Expectation, from_json, to_json
from sipfw.errors import BackendError
from sipfw.host.files import Layout, read_private, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Applied:
    """The last apply: what should be live and what it was made from.

    `generation` is None in a record of a version without generations.
    """

    expectation: Expectation
    source: str
    backend: str = "iptables"
    generation: int | None = None


def write_applied(layout: Layout, applied: Applied) -> None:
    """Remember an apply."""
    data = {
        "source": applied.source,
        "backend": applied.backend,
        "generation": applied.generation,
        "expectation": to_json(applied.expectation),
    }
    write_atomically(layout.applied, json.dumps(data) + "\n")


def read_applied(layout: Layout) -> Applied | None:
    """Return the last apply, None when there was none. Raises BackendError for a damaged file."""
    return _read(layout, _applied)


def read_record(layout: Layout, make: Callable[[Any], T]) -> T | None:
    """Return what `make` makes of the record's plain data, None when there is no record.

    `make` may trip over anything that is not as it should be: that is a damaged file, and so
    BackendError.
    """
    return _read(layout, lambda text: make(json.loads(text)))


def _read(layout: Layout, make: Callable[[str], T]) -> T | None:
    try:
        return make(read_private(layout.applied))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise BackendError(f"{layout.applied}: only root may read it", hint="use sudo") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackendError(
            f"{layout.applied}: cannot be read: {error}", hint="apply again to write a new one"
        ) from error


# A command asks for the record several times, and it has 100,000 values.
@lru_cache(maxsize=1)
def _applied(text: str) -> Applied:
    data = json.loads(text)
    generation = data.get("generation")
    return Applied(
        from_json(data["expectation"]),
        str(data["source"]),
        str(data["backend"]),
        None if generation is None else int(generation),
    )
