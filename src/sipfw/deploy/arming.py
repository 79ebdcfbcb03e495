"""Starts the guardian of a change, so that it outlives the command, its terminal and its session.

Where systemd runs the host it gets a unit of its own, because the end of a session may kill every
process in the session's control group. Elsewhere it is a process of its own session.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.backends.runner import HOST_PATH, SubprocessRunner
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.backends.runner import Runner
    from sipfw.deploy.files import Layout
    from sipfw.deploy.journal import Journal

_SYSTEMD = Path("/run/systemd/system")
_SECONDS = 20.0
_POLL = 0.01

# -I keeps the caller's directory and PYTHON* variables out; a checkout is not on that path.
_START = (
    "import sys; path = sys.argv.pop(1); path in sys.path or sys.path.insert(0, path); "
    "from sipfw.deploy.guardian import main; main()"
)


def arm(layout: Layout, journal: Journal) -> None:
    """Return when a guardian watches the journal. Raises BackendError when none could be had."""
    command = guardian_command(layout, journal.token)
    if _is_systemds_host() and _armed_by_systemd(command, journal.token, SubprocessRunner()):
        return
    if not _armed_alone(command):
        raise BackendError(
            "the guardian, which would take an interrupted change back, does not start",
            hint="nothing was changed; is there memory left?",
        )


def guardian_command(layout: Layout, token: str) -> list[str]:
    """Return the command line of a guardian."""
    package = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-I", "-c", _START, package, str(layout.root.resolve()), token]


def _environment() -> dict[str, str]:
    """Take over nothing but where the xtables lock is."""
    lock = os.environ.get("XTABLES_LOCKFILE")
    return {
        "PATH": HOST_PATH,
        "LC_ALL": "C",
        **({} if lock is None else {"XTABLES_LOCKFILE": lock}),
    }


def _is_systemds_host(proc: Path = Path("/proc")) -> bool:
    """Tell whether PID 1 is systemd and sees the network and the files that we see."""
    try:
        return _SYSTEMD.is_dir() and all(
            (proc / "self/ns" / name).readlink() == (proc / "1/ns" / name).readlink()
            for name in ("net", "mnt")
        )
    except OSError:
        return False


def _armed_by_systemd(command: list[str], token: str, runner: Runner) -> bool:
    """Run it as a unit; as `forking`, systemd-run returns when the guardian is ready."""
    settings = [f"--setenv={name}={value}" for name, value in _environment().items()]
    unit = ["--quiet", "--collect", "--service-type=forking", f"--unit=sipfw-guardian-{token}"]
    try:
        done = runner.run(["systemd-run", *unit, *settings, "--", *command], timeout=_SECONDS)
    except BackendError:
        return False
    return done.returncode == 0


def _armed_alone(command: list[str]) -> bool:
    """Run it as a child that ends when the guardian, its own child, is ready."""
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    try:
        pid = os.posix_spawn(command[0], command, _environment(), file_actions=null, setsigmask=[])
    except OSError:
        return False
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(_POLL)
    with suppress(ProcessLookupError):
        os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False
