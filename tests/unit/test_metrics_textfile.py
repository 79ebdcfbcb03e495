"""The file for node_exporter: whole, readable, and only where the operator meant it to be."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import BackendError
from sipfw.monitor.metrics.textfile import write_textfile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "node_exporter"
    made.mkdir()
    return made


def test_it_is_replaced_and_everybody_may_read_it(folder: Path) -> None:
    path = folder / "sipfw.prom"
    before = os.umask(0o077)
    try:
        for text in ("a 1\n", "a 2\n"):
            write_textfile(path, text)
            assert path.read_text() == text
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)
    # Nothing is left that the collector could take for another file.
    assert [item.name for item in folder.iterdir()] == ["sipfw.prom"]


def test_a_reader_of_the_old_file_keeps_it_whole(folder: Path) -> None:
    path = folder / "sipfw.prom"
    write_textfile(path, "old\n")
    with path.open() as reader:
        write_textfile(path, "new\n")
        assert reader.read() == "old\n"


def test_a_missing_folder_is_named_and_not_made(folder: Path) -> None:
    path = folder / "more" / "sipfw.prom"
    with pytest.raises(BackendError, match="no such folder; make it, and start node_exporter"):
        write_textfile(path, "a 1\n")
    assert not path.parent.exists()


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    (folder / "more").write_text("")
    with pytest.raises(BackendError, match="no such folder"):
        write_textfile(folder / "more" / "sipfw.prom", "a 1\n")


def test_a_folder_in_the_place_of_the_file(folder: Path) -> None:
    (folder / "sipfw.prom").mkdir()
    with pytest.raises(BackendError, match="cannot be written: is a directory"):
        write_textfile(folder / "sipfw.prom", "a 1\n")


def test_a_link_in_the_place_of_the_file_is_not_followed(folder: Path) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / "sipfw.prom").symlink_to(victim)
    with pytest.raises(BackendError, match="is a symbolic link; name the file itself"):
        write_textfile(folder / "sipfw.prom", "a 1\n")
    assert victim.read_text() == "precious"
    assert (folder / "sipfw.prom").is_symlink()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_link_that_somebody_else_may_have_made_leads_nowhere(
    folder: Path, tmp_path: Path, mode: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    (shared / "metrics").symlink_to(folder)
    with pytest.raises(BackendError, match="symbolic link that others than root may have made"):
        write_textfile(shared / "metrics" / "sipfw.prom", "a 1\n")
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_link_in_a_folder_of_another_user(folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "metrics").symlink_to(folder)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(BackendError, match="others than root may have made"):
        write_textfile(theirs / "metrics" / "sipfw.prom", "a 1\n")


def test_a_link_that_root_made_is_fine(folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "link").symlink_to(folder)
    write_textfile(tmp_path / "link" / "sipfw.prom", "a 1\n")
    assert (folder / "sipfw.prom").read_text() == "a 1\n"


def test_a_shared_folder_itself_is_fine(folder: Path) -> None:
    folder.chmod(0o1777)
    write_textfile(folder / "sipfw.prom", "a 1\n")
    assert (folder / "sipfw.prom").read_text() == "a 1\n"
