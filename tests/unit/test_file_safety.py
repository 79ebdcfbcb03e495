"""A policy that others may change is obeyed by nobody; a state folder that is open is closed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import Exit
from sipfw.feeds.errors import FeedError
from sipfw.feeds.fetch import read_file
from sipfw.host.files import Layout
from sipfw.host.state_folders import close_folders
from sipfw.policy.file_safety import why_unsafe

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Sipfw

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")

NOBODY = 65534


def judged(path: Path) -> str | None:
    with path.open("rb") as file:
        return why_unsafe(path, file.fileno())


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "etc" / "sipfw"
    folder.mkdir(parents=True)
    for each in (folder, folder.parent):
        each.chmod(0o755)
    file = folder / "policy.yaml"
    file.write_text("profile: wholesale\n")
    file.chmod(0o644)
    return file


def linked(policy: Path) -> Path:
    """Put a link to the policy into a folder that anybody may write."""
    link = policy.parents[2] / "open" / "policy.yaml"
    link.parent.mkdir()
    link.parent.chmod(0o777)
    link.symlink_to(policy)
    return link


def behind_a_link(policy: Path) -> Path:
    """Reach the policy through a link to a folder beside an open one."""
    link = policy.parents[2] / "link"
    link.symlink_to(policy.parent)
    policy.parent.chmod(0o777)
    return link / policy.name


WAYS: dict[str, Callable[[Path], object]] = {
    "everybody may write it": lambda it: it.chmod(0o646),
    "a group may write it": lambda it: it.chmod(0o664),
    "it is somebody's": lambda it: os.chown(it, NOBODY, 0),
    "its folder is open": lambda it: it.parent.chmod(0o777),
    "its folder is open to a group": lambda it: it.parent.chmod(0o775),
    "its folder is sticky": lambda it: it.parent.chmod(0o1777),
    "its folder is somebody's": lambda it: os.chown(it.parent, NOBODY, 0),
    "a folder above is open": lambda it: it.parents[1].chmod(0o777),
    "a folder above is somebody's": lambda it: os.chown(it.parents[1], NOBODY, 0),
    "a link to it stands in an open folder": linked,
    "a link leads to its open folder": behind_a_link,
}


@pytest.mark.parametrize("way", WAYS)
def test_who_may_change_it_is_named_and_apply_refuses(
    way: str, policy: Path, sipfw: Sipfw, tmp_path: Path
) -> None:
    assert judged(policy) is None
    made = WAYS[way](policy)
    path = made if isinstance(made, Path) else policy
    said = judged(path)
    assert said is not None
    words = ("--policy", str(path), "--root", str(tmp_path / "root"))
    ran = sipfw("apply", *words, "--backend", "nftables")
    assert ran.code == Exit.BACKEND
    assert ran.stderr == f"{path}: {said}; chown root and chmod go-w, or apply with --force\n"
    # What only looks says it and goes on.
    for command in ("check", "render"):
        ran = sipfw(command, *words)
        assert ran.code == Exit.CLEAN
        assert f"{path}: warning: {said}\n" in ran.stderr


def test_a_folder_in_a_sticky_one_is_its_owners(policy: Path) -> None:
    policy.parents[1].chmod(0o1777)
    assert judged(policy) is None


def test_a_pipe_of_the_shell_is_fine() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    assert why_unsafe(Path(f"/dev/fd/{reading}"), reading) is None
    os.close(reading)


def test_a_list_may_be_somebodys_but_not_everybodys(policy: Path) -> None:
    policy.write_text("203.0.113.9\n")
    os.chown(policy, NOBODY, NOBODY)
    assert read_file(str(policy)) == b"203.0.113.9\n"
    policy.chmod(0o646)
    with pytest.raises(FeedError, match="has mode 646"):
        read_file(str(policy))


def test_open_state_folders_are_closed_and_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.generations.mkdir(parents=True, mode=0o700)
    layout.state.chmod(0o755)
    os.chown(layout.generations, NOBODY, NOBODY)
    said = close_folders(layout)
    end = "; now only root may look into it"
    assert said == [
        f"mended: {layout.state} had mode 755{end}",
        f"mended: {layout.generations} belonged to user id {NOBODY}{end}",
    ]
    for folder in (layout.state, layout.generations):
        found = folder.stat()
        assert (found.st_mode & 0o7777, found.st_uid) == (0o700, 0)
    assert close_folders(layout) == []
