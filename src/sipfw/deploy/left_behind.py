"""What of ours lives where the firewall that comes is not: rules of a saved file, empty sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.backend import backend_of, backends
from sipfw.kernel.detect import look

if TYPE_CHECKING:
    from sipfw.deploy.activate import Firewall


def elsewhere(firewall: Firewall) -> tuple[str, ...]:
    """Name the other backends in which rules of ours are live: they would judge a second time."""
    try:
        return tuple(sorted(look().ours - {firewall.backend}))
    except BackendError:
        return ()


def drop_left_sets(firewall: Firewall) -> list[str]:
    """Destroy sets of a kind that the firewall does not use; return notes. Raises nothing."""
    used = backend_of(firewall.backend).facts.sets
    others = {item.facts.sets: item for item in backends() if item.facts.sets != used}
    notes: list[str] = []
    for item in others.values():
        try:
            notes += item.drop_left_sets()
        except BackendError as error:
            notes.append(f"sets of an earlier firewall may be left: {error.message}")
    return notes
