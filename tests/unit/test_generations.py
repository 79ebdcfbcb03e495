from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, NoReturn

import pytest

from sipfw.deploy import generations
from sipfw.deploy.activate import Firewall, way_back
from sipfw.deploy.generations import (
    KEPT,
    Content,
    Damaged,
    Generation,
    discard,
    list_generations,
    mark_undone,
    prune,
    read_generation,
    read_ruleset,
    write_generation,
)
from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.ruleset.model import Base, Chain, Hook, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Drop, Origin, Rule

if TYPE_CHECKING:
    from pathlib import Path

_RULE = Rule("a", (), Drop(), "a rule", Origin("limits", "policy.yaml"))
_CHAIN = Chain("A", Layer.ENTRY, "", (_RULE,), Priority.RAW, Base(Hook.INPUT, Priority.RAW))
RULESET = Ruleset((_CHAIN,), (), ())
CONTENT = Content(RULESET, "nftables", ipset=True, source="profile x", policy="{}", listing="text")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def _made(layout: Layout, count: int) -> None:
    for _ in range(count):
        write_generation(layout, CONTENT, None)


def _confirm(layout: Layout, number: int) -> None:
    (layout.generations / str(number) / "confirmed.json").write_text("{}")


def test_a_generation_comes_back_and_is_for_root_alone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    made = write_generation(layout, CONTENT, None)
    assert (made.number, made.who, made.confirmed) == (1, "alice", False)
    assert read_generation(layout, 1) == made
    assert read_ruleset(layout, made) == RULESET
    folder = layout.generations / "1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "caller.json", "listing.txt", "meta.json", "policy.json", "ruleset.json",
    ]  # fmt: skip
    for path in (layout.state, layout.generations, folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_numbers_go_on_and_foreign_names_do_not_count(layout: Layout) -> None:
    _made(layout, 2)
    for name in ("01", "x", "-3", "7.bak"):
        (layout.generations / name).mkdir()
    assert write_generation(layout, CONTENT, 2).number == 3
    assert [item.number for item in list_generations(layout)] == [1, 2, 3]


def test_a_clock_that_jumps_back_changes_no_order(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Past(generations.dt.datetime):
        @classmethod
        def now(cls, tz: object = None) -> Past:  # type: ignore[override]
            del tz
            return cls(2001, 1, 1, tzinfo=generations.dt.UTC)

    _made(layout, 1)
    monkeypatch.setattr(generations.dt, "datetime", Past)
    _made(layout, 1)
    found = list_generations(layout)
    assert [item.number for item in found] == [1, 2]
    assert isinstance(found[1], Generation)
    assert found[1].time.startswith("2001")


def test_a_hostile_user_name_is_not_written_down(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "\x1b[2J$(reboot)")
    assert write_generation(layout, CONTENT, None).who == f"uid {os.getuid()}"


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_no_generation(
    call: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(BackendError, match="cannot be written: no space left on device"):
        write_generation(layout, CONTENT, None)
    assert list(layout.generations.iterdir()) == []


def _meta(folder: Path, **changes: object) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "empty meta": lambda folder: (folder / "meta.json").write_text(""),
    "deep meta": lambda folder: (folder / "meta.json").write_text("[" * 100_000),
    "meta of another": lambda folder: _meta(folder, number=5),
    "terminal codes": lambda folder: _meta(folder, who="\x1b[2J"),
    "backend": lambda folder: _meta(folder, backend="../../x"),
    "type": lambda folder: _meta(folder, ipset=1),
    "bytes": lambda folder: (folder / "meta.json").write_bytes(b"\xff\xfe"),
    "writable": lambda folder: (folder / "meta.json").chmod(0o666),
    "link": lambda folder: (
        (folder / "meta.json").rename(folder / "x"),
        (folder / "meta.json").symlink_to(folder / "x"),
    ),
    "pipe": lambda folder: ((folder / "meta.json").unlink(), os.mkfifo(folder / "meta.json")),
    "ruleset cut": lambda folder: (folder / "ruleset.json").write_text("{"),
    "ruleset gone": lambda folder: (folder / "ruleset.json").unlink(),
    "ruleset edited": lambda folder: (folder / "ruleset.json").write_text(
        (folder / "ruleset.json").read_text().replace("a rule", "a role")
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_generation_is_named_and_the_older_one_is_taken(
    layout: Layout, name: str
) -> None:
    _made(layout, 2)
    _confirm(layout, 1)
    DAMAGE[name](layout.generations / "2")
    found, said = way_back(layout, 2)
    assert isinstance(found, Firewall)
    assert found.generation == 1
    [text] = said
    assert text.startswith("generation 2 is skipped: ")
    assert text.isprintable()


def test_an_unconfirmed_older_one_is_no_way_back(layout: Layout) -> None:
    _made(layout, 2)
    (layout.generations / "2/meta.json").unlink()
    assert way_back(layout, 2)[0] is None
    assert way_back(layout, None) == (None, [])


def test_the_last_twenty_stay_and_those_that_are_needed(layout: Layout) -> None:
    _made(layout, KEPT + 5)
    for number in (1, 3):
        _confirm(layout, number)
    prune(layout, (2, None))
    numbers = [item.number for item in list_generations(layout)]
    assert numbers == [2, 3, *range(6, KEPT + 6)]


def test_why_it_was_taken_back_is_kept_unless_it_was_confirmed(layout: Layout) -> None:
    _made(layout, 2)
    _confirm(layout, 2)
    for number in (1, 2, 9):
        mark_undone(layout, number, "not confirmed in time")
    first, second = list_generations(layout)
    assert isinstance(first, Generation)
    assert first.undone == "not confirmed in time"
    assert isinstance(second, Generation)
    assert second.undone is None
    (layout.generations / "1/undone.json").write_text("[")
    damaged_note = read_generation(layout, 1)
    assert isinstance(damaged_note, Generation)
    assert damaged_note.undone == "taken back"


def test_a_discarded_one_is_gone_and_leftovers_are_swept(layout: Layout) -> None:
    _made(layout, 1)
    (layout.generations / ".9.half").mkdir()
    discard(layout, 1)
    discard(layout, 1)
    assert list_generations(layout) == []
    assert isinstance(read_generation(layout, 1), Damaged)
    _made(layout, 1)
    assert [path.name for path in layout.generations.iterdir()] == ["1"]
