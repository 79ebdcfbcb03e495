"""Texts that honest messages hold: to search for one of them is to drop everybody.

The kernel searches a whole message and compares letters without case, and so does this.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

_MESSAGES = "common_messages.txt"
_AGENTS = "legitimate_user_agents.txt"


def why_common(text: str) -> str | None:
    """Say in what of an honest message a text stands, None where in nothing that is known."""
    wanted = text.casefold()
    if any(wanted in line for line in _lines(_MESSAGES)):
        return "stands in the messages of every phone and carrier, so it would block all of them"
    found = next((line for line in _lines(_AGENTS) if wanted in line), None)
    if found is not None:
        return f"would block legitimate traffic, it stands in the User-Agent '{_written(found)}'"
    return None


@lru_cache(maxsize=2)
def _texts(name: str) -> dict[str, str]:
    """Return the lines of a data file, each under what is compared."""
    text = files("sipfw").joinpath("data", name).read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    # A trailing blank would be lost in an editor, and stands behind every header's name.
    return {f"{line} ".casefold(): line for line in lines}


def _lines(name: str) -> tuple[str, ...]:
    return tuple(_texts(name))


def _written(line: str) -> str:
    return _texts(_AGENTS)[line]
