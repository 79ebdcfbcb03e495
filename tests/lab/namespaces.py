"""Create, list and delete the lab's namespaces, and start programs in them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.channel import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PREFIX = "sipfw-"
NETNS = Path("/run/netns")
_numbers = count(1)
_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def unavailable_reason() -> str | None:
    """Return why this process cannot build a lab, or None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "sysctl") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def fresh_prefix() -> str:
    """Return the start of names that no other process and no other lab of this one uses."""
    return f"{PREFIX}{os.getpid()}-{next(_numbers)}-"


@contextlib.contextmanager
def moved_into(namespace: str) -> Iterator[None]:
    """Have what this thread starts meanwhile start in the namespace.

    `ip netns exec` costs a process and a mount namespace, as long again as a small program. Like
    that one it changes what /proc/net shows; unlike it, /sys and mounts are the caller's.
    """
    home, there = Path("/proc/thread-self/ns/net"), NETNS / namespace
    with home.open("rb") as back, there.open("rb") as place:
        _set_namespace(place.fileno())
        try:
            yield
        finally:
            _set_namespace(back.fileno())


def _set_namespace(descriptor: int) -> None:
    # Only this thread moves; os.setns came with Python 3.12.
    if _LIBC.setns(descriptor, _NEWNET):
        raise OSError(ctypes.get_errno(), "cannot move into the namespace")


def popen(namespace: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a program in the namespace; the options are those of subprocess.Popen."""
    with moved_into(namespace):
        return subprocess.Popen(argv, text=True, **options)


def run(
    namespace: str,
    argv: Sequence[str],
    input: str | None = None,  # noqa: A002 -- named as in subprocess.run
    *,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program in the namespace to its end; `env` is added to the environment."""
    pipe = subprocess.PIPE
    source = subprocess.DEVNULL if input is None else pipe
    whole = {**os.environ, **(env or {})}
    with popen(
        namespace, argv, stdin=source, stdout=pipe, stderr=pipe, env=whole, cwd=cwd
    ) as program:
        try:
            out, err = program.communicate(input, timeout)
        except BaseException:
            program.kill()
            raise
    return subprocess.CompletedProcess(argv, program.returncode, out, err)


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
