"""Every diagnostic: one folder per fault with `bad.yaml` and exactly what `check` prints about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.errors import Exit

if TYPE_CHECKING:
    from conftest import Sipfw

_FOLDER = Path(__file__).parent
_FAULTS = sorted(path.parent.name for path in _FOLDER.glob("*/bad.yaml"))

_ALSO_EMPTY = "also says that the list is empty, although the operator wrote an entry"
_WAITING = (
    "address-bad-v6",
    "address-host-bits",
    "address-host-bits-v6",
    "address-prefix-too-long",
    "peer-host-name-injection",
    "peer-host-name-one-label",
    "peer-host-name-option",
)


def _cases() -> list[object]:
    return [
        pytest.param(
            name,
            marks=[pytest.mark.xfail(reason=_ALSO_EMPTY, strict=True)] if name in _WAITING else [],
        )
        for name in _FAULTS
    ]


@pytest.mark.parametrize("fault", _cases())
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
