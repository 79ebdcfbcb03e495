"""A network namespace for one test file, and a runner that works inside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from lab import namespaces
from sipfw.host.runner import Completed, SubprocessRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


# Given the runner, a function that runs the real worker, and its input; returns what the backend
# shall see.
Trouble = Callable[["NamespaceRunner", Callable[[str], Completed], str], Completed]


@dataclass
class NamespaceRunner:
    """Runs everything in the namespace, with a lock file of its own for the tools.

    `trouble` stands around the worker process of the iptables backend.
    """

    name: str
    lock_file: str
    trouble: Trouble | None = None

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        def execute(text: str) -> Completed:
            lock = {"XTABLES_LOCKFILE": self.lock_file}
            with namespaces.moved_into(self.name):
                return SubprocessRunner().run(
                    argv, stdin=text, timeout=timeout, env={**lock, **(env or {})}
                )

        # The worker is the only Python program that the backend starts.
        if self.trouble is not None and argv[0] == sys.executable:
            return self.trouble(replace(self, trouble=None), execute, stdin)
        return execute(stdin)

    def ok(self, *argv: str, stdin: str = "") -> str:
        """Run a command that must succeed and return its output."""
        done = self.run(argv, stdin=stdin)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout


@contextmanager
def scratch_namespace(label: str, lock_file: str) -> Iterator[NamespaceRunner]:
    """Make a namespace with loopback up; skip without root, but never in CI."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("netns tests need root")
        pytest.skip("needs root")
    name = f"sipfw-{label}-{os.getpid()}"
    host = SubprocessRunner()
    made = host.run(["ip", "netns", "add", name])
    assert made.returncode == 0, made.stderr
    try:
        runner = NamespaceRunner(name, lock_file)
        runner.ok("ip", "link", "set", "lo", "up")
        yield runner
    finally:
        host.run(["ip", "netns", "del", name])
