"""docs/architecture.md names every room that there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = {path.parent.name for path in (ROOT / "src" / "sipfw").glob("*/__init__.py")}


def test_every_room_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE))
    assert rows == ROOMS


def test_files_that_it_names_exist() -> None:
    named = set(re.findall(r"`((?:\w+/)+[\w*]+\.(?:py|yaml))`", PAGE))
    assert len(named) > 10
    missing = [
        name
        for name in named
        if not any(list(base.glob(name)) for base in (ROOT, ROOT / "src" / "sipfw"))
    ]
    assert missing == []
