"""What any test may need and no test should repeat: the command line, run inside this process.

Also what holds for all of them: their order, and that hypothesis has no clock.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

import pytest
from hypothesis import settings

from distribution import arrange
from sipfw.cli import main

# pytest-xdist sets it for its workers, and every program that a test starts would obey it.
os.environ.pop("COLUMNS", None)


def _keep_files_in_memory() -> None:
    """Have `tmp_path` there, where it may hold programs and whole runs.

    sipfw writes its state so that a power cut cannot lose it, and an apply waits for a disk some
    thirty times.
    """
    with contextlib.suppress(OSError):
        found = os.statvfs(MEMORY)
        roomy = found.f_bavail * found.f_frsize >= ROOM
        if roomy and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


MEMORY, ROOM = "/dev/shm", 4 << 30  # noqa: S108 -- pytest makes a folder of its own there
_keep_files_in_memory()

# How long an example takes is up to what else the machine does.
settings.register_profile("sipfw", deadline=None)
settings.load_profile("sipfw")


# Before pytest-xdist's own, which reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items)


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of the command left behind."""

    code: int
    stdout: str
    stderr: str


Sipfw = Callable[..., Ran]


def _sipfw(*arguments: str) -> Ran:
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["sipfw", *arguments]),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    code = stopped.value.code
    return Ran(
        code if isinstance(code, int) else int(bool(code)), stdout.getvalue(), stderr.getvalue()
    )


@pytest.fixture(scope="session")
def sipfw() -> Sipfw:
    """Run `sipfw ARGUMENTS` through `main`, so that its handling of errors is under test too."""
    return _sipfw


@pytest.fixture(autouse=True)
def _no_operator_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SIPFW_ROOT",
        "SIPFW_BACKEND",
        "SIPFW_DEBUG",
        "SSH_CLIENT",
        "SSH_CONNECTION",
    ):
        monkeypatch.delenv(name, raising=False)
