"""State files that the version before wrote are read, and written again they hold the same."""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from sipfw.compare.expected import from_json, to_json
from sipfw.deploy.generations import Generation, list_generations
from sipfw.deploy.journal import Journal
from sipfw.deploy.journal import read as read_journal
from sipfw.host.files import Layout

_KEPT = sorted((Path(__file__).parents[1] / "data" / "upgrade").glob("*.tar.gz"))


@pytest.fixture(params=_KEPT, ids=lambda path: path.name.partition(".")[0])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    with tarfile.open(request.param) as kept:
        kept.extractall(tmp_path, filter="data")
    (state,) = tmp_path.rglob("applied.json")
    return Layout(state.parents[3])


def test_the_record_of_the_apply(layout: Layout) -> None:
    written = json.loads(layout.applied.read_text(encoding="utf-8"))["expectation"]
    again = json.loads(json.dumps(to_json(from_json(written))))
    for item in again["sets"]:
        # That version did not write from which set of the ruleset it came.
        assert item.pop("of") == ""
    # Nor did it note what trusted peers lose.
    assert again.pop("tallies") == []
    assert again == written


def test_the_descriptions_of_generations(layout: Layout) -> None:
    found = list_generations(layout)
    assert found
    for item in found:
        assert isinstance(item, Generation)
        meta = layout.generations / str(item.number) / "meta.json"
        written = json.loads(meta.read_text(encoding="utf-8"))
        assert {name: asdict(item)[name] for name in written} == written
        assert set(asdict(item)) - set(written) == {"confirmed", "undone", "address", "pinned"}


def test_the_journals_that_confirmed_them(layout: Layout) -> None:
    found = [
        path
        for path in (*layout.generations.glob("*/confirmed.json"), layout.pending)
        if path.exists()
    ]
    assert found
    for path in found:
        read = read_journal(path)
        assert isinstance(read, Journal)
        written = json.loads(path.read_text(encoding="utf-8"))
        assert json.loads(json.dumps({"format": 1, **asdict(read)})) == written


@pytest.mark.parametrize("field", ["token", "boot", "started", "group"])
def test_a_journal_that_lacks_a_field_is_not_filled_up(layout: Layout, field: str) -> None:
    path = next(iter(layout.generations.glob("*/confirmed.json")))
    written = json.loads(path.read_text(encoding="utf-8"))
    del written[field]
    path.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        read_journal(path)
