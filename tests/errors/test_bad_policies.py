"""Every diagnostic: a folder per fault with `bad.yaml` and exactly what `check` says about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import Exit

if TYPE_CHECKING:
    from conftest import Sipfw

_FOLDER = Path(__file__).parent
_FAULTS = sorted(path.parent.name for path in _FOLDER.glob("*/bad.yaml"))


@pytest.mark.parametrize("fault", _FAULTS)
def test_says_what_is_wrong_and_where(
    fault: str, sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_FOLDER / fault)
    ran = sipfw("check", "--policy", "bad.yaml", "--root", str(tmp_path))
    assert ran.stderr == Path("expected.stderr").read_text(encoding="utf-8")
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")


@pytest.mark.parametrize("fault", [name for name in _FAULTS if name.startswith("many-")])
def test_all_faults_come_at_once_by_line(
    fault: str, sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_FOLDER / fault)
    ran = sipfw("check", "--policy", "bad.yaml", "--root", str(tmp_path))
    lines = [int(line.split(":")[1]) for line in ran.stderr.splitlines()]
    assert len(lines) >= 4
    assert lines == sorted(lines)


@pytest.mark.parametrize("command", ["render", "apply", "verify"])
def test_every_command_refuses_a_bad_policy(
    command: str, sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_FOLDER / "limit-zero")
    ran = sipfw(command, "--policy", "bad.yaml", "--root", str(tmp_path))
    assert ran.stderr == Path("expected.stderr").read_text(encoding="utf-8")
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")
    assert list(tmp_path.iterdir()) == []
