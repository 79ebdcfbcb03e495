from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from sipfw.errors import BackendError
from sipfw.host.files import Layout, write_atomically


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_for_root_alone(tmp_path: Path) -> None:
    target = tmp_path / "var/lib/sipfw/applied.json"
    write_atomically(target, "text\n")
    assert target.read_text(encoding="utf-8") == "text\n"
    assert _mode(target) == 0o600
    assert _mode(target.parent) == 0o700
    assert [path.name for path in target.parent.iterdir()] == ["applied.json"]


def test_the_mode_is_exact_whatever_the_umask_and_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "60-sipfw.conf"
    target.write_text("old", encoding="utf-8")
    target.chmod(0o666)
    before = os.umask(0o077)
    try:
        write_atomically(target, "new", mode=0o644)
    finally:
        os.umask(before)
    assert (target.read_text(encoding="utf-8"), _mode(target)) == ("new", 0o644)


def test_a_reader_who_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old text", encoding="utf-8")
    with target.open(encoding="utf-8") as reader:
        write_atomically(target, "new")
        assert reader.read() == "old text"


def test_a_link_is_replaced_and_its_target_is_left_alone(tmp_path: Path) -> None:
    secret, target = tmp_path / "shadow", tmp_path / "file"
    secret.write_text("secret", encoding="utf-8")
    target.symlink_to(secret)
    write_atomically(target, "new")
    assert secret.read_text(encoding="utf-8") == "secret"
    assert not target.is_symlink()


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_full_disk_leaves_the_old_file_and_no_rubbish(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_text("old", encoding="utf-8")

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(BackendError) as raised:
        write_atomically(target, "new")
    assert str(raised.value) == f"{target}: cannot be written: no space left on device"
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupt_leaves_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("", encoding="utf-8")
    with pytest.raises(BackendError, match=r"etc/x/file: cannot be written: not a directory"):
        write_atomically(tmp_path / "etc/x/file", "new")


def test_a_folder_in_the_way_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(BackendError, match="cannot be written: is a directory"):
        write_atomically(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BackendError, match="cannot be written: permission denied"):
        write_atomically(tmp_path / "file", "new")


def test_a_read_only_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read_only(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", read_only)
    with pytest.raises(BackendError, match="cannot be written: read-only file system"):
        write_atomically(tmp_path / "file", "new")


def test_every_path_is_below_the_root() -> None:
    layout = Layout(Path("/somewhere"))
    for path in (layout.applied, layout.sysctl_before, layout.sysctl_file):
        assert path.is_relative_to("/somewhere")
