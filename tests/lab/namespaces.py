"""Create, list and delete the lab's namespaces; the only module that runs `ip`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from lab.channel import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFIX = "sipfw-"
NETNS = Path("/run/netns")
_numbers = count(1)


def unavailable_reason() -> str | None:
    """Return why this process cannot build a lab, or None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "sysctl") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def fresh_prefix() -> str:
    """Return the start of names that no other process and no other lab of this one uses."""
    return f"{PREFIX}{os.getpid()}-{next(_numbers)}-"


def batch(commands: Iterable[str], namespace: str | None = None) -> None:
    """Run several `ip` commands in one process, stopping at the first that fails."""
    where = ["-n", namespace] if namespace else []
    _run(["ip", *where, "-batch", "-"], "\n".join(commands) + "\n")


def set_sysctls(namespace: str, values: Sequence[str]) -> None:
    _run(["ip", "netns", "exec", namespace, "sysctl", "-qw", *values], "")


def remove(names: Sequence[str]) -> None:
    """Delete namespaces and end what still runs in them, going on after failures."""
    for name in names:
        for pid in _pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    # Forced: with -force the batch goes on after a namespace that is already gone.
    commands = "".join(f"netns delete {name}\n" for name in names)
    subprocess.run(
        ["ip", "-force", "-batch", "-"], input=commands, text=True, capture_output=True, check=False
    )


def sweep() -> list[str]:
    """Remove the namespaces of labs whose process is dead and return their names."""
    names = [name for name in _existing() if _owner_is_dead(name)]
    if names:
        remove(names)
    return names


def _existing() -> list[str]:
    return sorted(path.name for path in NETNS.glob(f"{PREFIX}*"))


def _owner_is_dead(name: str) -> bool:
    owner = name.removeprefix(PREFIX).partition("-")[0]
    if not owner.isdigit():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _pids(name: str) -> list[int]:
    listing = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listing.stdout.split()]


def _run(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        msg = f"{' '.join(command)}: {done.stderr.strip() or done.returncode}"
        raise LabError(msg)
