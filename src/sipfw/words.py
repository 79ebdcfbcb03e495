"""Counts, lengths of time and moments, as everything that people read writes them; near words."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Two letters of five wrong, or swapped; below it are words that only share letters.
_NEAR = 0.6
_SHORTEST_START = 3


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """Write `1 rule` and `1,200 rules`; `many` is the plural where it is not `one` with an s."""
    word = one if number == 1 else many or f"{one}s"
    return f"{number:,} {word}"


def format_duration(seconds: float) -> str:
    """Write a length of time in its two largest units: `41 min 12 s`, `3 d 2 h`."""
    left = max(round(seconds), 0)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        amount, left = divmod(left, size)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def format_timestamp(epoch: float) -> str:
    """Write a moment by this host's clock, with its distance from UTC (RFC 3339).

    `--since` reads it; the letters of a zone would not do, CST is one of three.
    """
    return datetime.fromtimestamp(int(epoch), UTC).astimezone().isoformat(sep=" ")


def format_stored_timestamp(text: str) -> str:
    """Write a moment that stands in a file, in ISO 8601; as it is where it cannot be read."""
    try:
        return format_timestamp(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, None where nothing is near.

    Letters count without case; a beginning that only one word has is near, too.
    """
    words = {item.casefold(): item for item in known}
    typed = word.casefold()
    found = get_close_matches(typed, words, n=1, cutoff=_NEAR)
    if not found and len(typed) >= _SHORTEST_START:
        longer = [item for item in words if item.startswith(typed)]
        found = longer if len(longer) == 1 else []
    return words[found[0]] if found else None
