"""One look at the packet filter, shared by all that one command asks of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sipfw.host.runner import SubprocessRunner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sipfw.host.runner import Completed, Runner

# Children that work in a namespace of their own leave this one as it is.
_ELSEWHERE = ("sipfw.kernel.namespace", "sipfw.kernel.netlink.rules")


class HostSnapshot:
    """A runner that asks each question once, and forgets the answers when something is changed.

    Only listings are remembered, and only those that worked. Any other program may write, so after
    one all is asked anew: what is read back is never from before. Whoever changes the kernel past
    this runner, or waits while others may, calls `forget`.
    """

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner or SubprocessRunner()
        self._known: dict[tuple[str, ...], Completed] = {}
        self._versions: dict[tuple[str, ...], Completed] = {}
        self._taken = time.time_ns()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Answer from memory where that is a listing, else run `argv`."""
        key = tuple(argv)
        memory = self._versions if key[-1:] == ("--version",) else self._known
        if memory is self._known and not _is_listing(key):
            if not _leaves_as_it_is(key):
                self.forget()
            return self._runner.run(argv, stdin=stdin, timeout=timeout, env=env)
        found = memory.get(key)
        if found is None:
            found = self._runner.run(argv, stdin=stdin, timeout=timeout, env=env)
            if found.returncode == 0:
                memory[key] = found
        return found

    def knows(self, argv: tuple[str, ...]) -> bool:
        """Tell whether a listing can be answered from memory."""
        return argv in self._known

    def forget(self) -> None:
        """Ask everything anew from now on."""
        self._known.clear()
        self._taken = time.time_ns()

    def forget_if_before(self, moment_ns: int) -> None:
        """Ask anew where the look is older than a moment, in nanoseconds since 1970."""
        if self._taken <= moment_ns:
            self.forget()


def look_anew(runner: Runner) -> None:
    """Have the kernel asked anew by who is about to change it, whatever was looked at before."""
    if isinstance(runner, HostSnapshot):
        runner.forget()


def _is_listing(argv: tuple[str, ...]) -> bool:
    program = argv[0]
    if program == "nft":
        return "list" in argv and "-f" not in argv
    if program == "ipset":
        return argv[1] in {"list", "save"}
    return program.endswith("-save")


def _leaves_as_it_is(argv: tuple[str, ...]) -> bool:
    tests = argv[0] == "nft" and "-c" in argv
    asks = argv[0] in {"ip", "tc"} and not {"get", "show"}.isdisjoint(argv)
    return tests or asks or "--test" in argv or any(name in argv for name in _ELSEWHERE)
