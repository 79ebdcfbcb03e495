"""Starts the watchdog of a change, so that it outlives the command, its terminal and its session.

Where systemd runs the host it gets a unit of its own, because the end of a session may kill every
process in the session's control group. Elsewhere it is a process of its own session.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.child import child_command
from sipfw.host.runner import HOST_PATH, SubprocessRunner

if TYPE_CHECKING:
    from sipfw.deploy.journal import Journal
    from sipfw.host.files import Layout
    from sipfw.host.runner import Runner

_SYSTEMD = Path("/run/systemd/system")
_SECONDS = 20.0
_POLL = 0.01


def arm(layout: Layout, journal: Journal) -> None:
    """Return when a watchdog watches the journal. Raises BackendError when none could be had."""
    command = watchdog_command(layout, journal.token)
    if _is_systemds_host() and _armed_by_systemd(command, journal.token, SubprocessRunner()):
        return
    if not _armed_alone(command):
        raise BackendError(
            "the watchdog, which would take an interrupted change back, does not start",
            hint="nothing was changed; is there memory left?",
        )


def watchdog_command(layout: Layout, token: str) -> list[str]:
    """Return the command line of a watchdog."""
    return child_command("sipfw.deploy.watchdog", "main", str(layout.root.resolve()), token)


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
    """Run it as a unit; as `forking`, systemd-run returns when the watchdog is ready."""
    settings = [f"--setenv={name}={value}" for name, value in _environment().items()]
    unit = ["--quiet", "--collect", "--service-type=forking", f"--unit=sipfw-watchdog-{token}"]
    try:
        done = runner.run(["systemd-run", *unit, *settings, "--", *command], timeout=_SECONDS)
    except BackendError:
        return False
    return done.returncode == 0


def _armed_alone(command: list[str]) -> bool:
    """Run it as a child that ends when the watchdog, its own child, is ready."""
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
