"""The dataclasses of a later version of sipfw, where nothing of what a rule says has changed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGED = ("sipfw.ruleset.", "sipfw.lower.")


def become_later() -> list[str]:
    """Change the dataclasses of modules that are not imported yet; list those that were.

    Each gets one more field, with a default, another class name, and a repr in another order.
    """
    real: Callable[..., Any] = dataclasses.dataclass
    changed: list[str] = []

    def later(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda found: later(found, **options)
        if not cls.__module__.startswith(CHANGED):
            return real(cls, **options)
        changed.append(f"{cls.__module__}.{cls.__name__}")
        cls.__annotations__["added_later"] = "int"
        cls.added_later = 0
        made = real(cls, **options)
        made.__qualname__ = made.__name__ = f"{cls.__name__}Later"
        made.__repr__ = _backwards
        return made

    dataclasses.dataclass = later
    return changed


def _backwards(self: Any) -> str:
    fields = reversed(dataclasses.fields(self))
    listed = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields)
    return f"{type(self).__qualname__}({listed})"
