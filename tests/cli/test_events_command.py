"""`sipfw events` without a firewall: what it says, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw


def test_an_empty_answer_says_what_is_recorded(sipfw: Sipfw, tmp_path: Path) -> None:
    done = sipfw("events", "--root", str(tmp_path))
    assert done.code == 0
    assert done.stdout.startswith("nobody was dropped or banned since ")
    assert "sipfw keep" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_has_moments_in_utc(sipfw: Sipfw, tmp_path: Path) -> None:
    data = json.loads(
        sipfw("events", "--root", str(tmp_path), "--since", "1h", "--json", "203.0.113.9").stdout
    )
    assert data["events"] == []
    assert data["since"].endswith("Z")


@pytest.mark.parametrize(
    "words",
    [
        ["198.51.100.666"],
        ["198.51.100.7/24"],
        ["--since", "tomorrow"],
        ["--since", "1h", "--until", "2h"],
        ["--until", "soon"],
    ],
)
def test_mistakes_are_one_line(sipfw: Sipfw, tmp_path: Path, words: list[str]) -> None:
    done = sipfw("events", "--root", str(tmp_path), *words)
    assert done.code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
