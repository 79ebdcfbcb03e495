"""Runs sipfw as on a host of its own: with a made-up name, and layers over /etc and /var/lib.

The network namespace is given; the mount and host name namespaces live as long as one process that
sleeps in them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from lab.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pyte

NAME = "switch.example"
_SETUP = """
set -e
mount -t tmpfs tmpfs "$1"
for folder in etc var/lib; do
    mkdir -p "$1/up/$folder" "$1/work/$folder"
    mount -t overlay overlay \
        -o "lowerdir=/$folder,upperdir=$1/up/$folder,workdir=$1/work/$folder" "/$folder"
done
mkdir -p /etc/sipfw
hostname "$2"
echo ready
exec sleep infinity
"""


class Guest:
    """A host in a network namespace that the lab made."""

    def __init__(self, namespace: str, scratch: Path) -> None:
        self._namespace = namespace
        self._layers = scratch / "layers"
        self._lock = scratch / "xtables.lock"

    def __enter__(self) -> Self:
        self._layers.mkdir()
        words = ["unshare", "--mount", "--uts", "--propagation", "private"]
        self._holder = subprocess.Popen(
            [*self._inside(), *words, "sh", "-c", _SETUP, "setup", str(self._layers), NAME],
            stdout=subprocess.PIPE,
            text=True,
        )
        # communicate() would wait for its end.
        if self._holder.stdout is None or self._holder.stdout.readline() != "ready\n":
            self._holder.kill()
            raise RuntimeError("no layers over /etc and /var/lib; does the kernel have overlayfs?")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._holder.kill()
        self._holder.wait()

    def write(self, path: str, text: str) -> None:
        """Write a file of the guest's."""
        words = ["sh", "-c", 'cat > "$1"', "write", path]
        subprocess.run([*self._enter(), *words], input=text, text=True, check=True)

    def sipfw(self, *words: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(
            [*self._enter(), sys.executable, "-m", "sipfw", *words],
            capture_output=True,
            text=True,
            env={**os.environ, **self._env()},
            check=False,
        )
        if done.returncode > 1:
            raise RuntimeError(f"sipfw {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def terminal(self, *words: str, columns: int, lines: int) -> Terminal:
        """Start a command in a terminal."""
        argv = [*self._enter(), sys.executable, "-m", "sipfw", *words]
        return Terminal(argv, columns=columns, lines=lines, env=self._env())

    def screen(self, *words: str) -> pyte.Screen:
        """Run a command to its end and return the screen that it left; no line is broken there."""
        with self.terminal(*words, columns=240, lines=100) as terminal:
            terminal.end(60)
            terminal.keep_reading(0.2)
            return terminal.screen

    def _env(self) -> dict[str, str]:
        # Pictures are alike wherever they are made.
        return {"XTABLES_LOCKFILE": str(self._lock), "TZ": "UTC", "SUDO_USER": "anna"}

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self._namespace]

    def _enter(self) -> list[str]:
        spaces = ["--mount", "--uts", "--net"]
        outside = ["env", "-u", "SSH_CONNECTION", "-u", "SSH_CLIENT"]
        return ["nsenter", "--target", str(self._sleeper()), *spaces, *outside]

    def _sleeper(self) -> int:
        # `ip netns exec` and `unshare` each become the next program: the process is the same.
        if self._holder.poll() is not None:
            raise RuntimeError("the guest is gone")
        return self._holder.pid
