"""What the last apply made live, on disk: the yardstick of `verify`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sipfw.deploy.files import Layout, write_atomically
from sipfw.errors import BackendError
from sipfw.verify.expectation import Expectation, from_json, to_json


@dataclass(frozen=True, slots=True)
class Applied:
    """The last apply: what should be live and what it was made from."""

    expectation: Expectation
    source: str
    backend: str = "iptables"


def write_applied(layout: Layout, applied: Applied) -> None:
    """Remember an apply."""
    data = {
        "source": applied.source,
        "backend": applied.backend,
        "expectation": to_json(applied.expectation),
    }
    write_atomically(layout.applied, json.dumps(data, indent=1) + "\n")


def read_applied(layout: Layout) -> Applied | None:
    """Return the last apply, None when there was none. Raises BackendError for a damaged file."""
    try:
        data = json.loads(layout.applied.read_text(encoding="utf-8"))
        return Applied(
            from_json(json.dumps(data["expectation"])), str(data["source"]), str(data["backend"])
        )
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise BackendError(f"{layout.applied}: only root may read it", hint="use sudo") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(
            f"{layout.applied}: cannot be read: {error}", hint="apply again to write a new one"
        ) from error
