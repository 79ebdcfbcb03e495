"""A watchdog as a fork of the process that starts it, where a test starts hundreds of them.

`spawn` takes the place of `os.posix_spawn`. The fork runs the same code on the command line's own
words, and has what an exec gives: no descriptor of the caller's, the given environment, signals as
at birth. What the start of an interpreter itself may do is for tests that start one.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import sipfw.deploy.watchdog  # noqa: F401 -- what it runs, loaded once

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Open, as posix_spawn is told it: the action, the descriptor, the path, the flags, the mode.
FileAction = tuple[int, int, str, int, int]


def spawn(
    _path: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    file_actions: Iterable[FileAction],
    setsigmask: Iterable[int],
) -> int:
    """Fork, and return the child's number at once."""
    pid = os.fork()
    if pid == 0:
        _be(argv, env, file_actions, setsigmask)
    return pid


def _be(
    argv: Sequence[str],
    env: Mapping[str, str],
    file_actions: Iterable[FileAction],
    setsigmask: Iterable[int],
) -> NoReturn:
    """Run `python -I -c CODE WORDS` in this process, and end it."""
    code = 1
    try:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, setsigmask)
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for _, number, path, flags, mode in file_actions:
            opened = os.open(path, flags, mode)
            assert opened == number
            os.set_inheritable(opened, True)  # noqa: FBT003 -- the only form it has
        os.environ.clear()
        os.environ.update(env)
        interpreter, isolated, option, text, *words = argv
        assert (interpreter, isolated, option) == (sys.executable, "-I", "-c")
        sys.argv = ["-c", *words]
        exec(text, {"__name__": "__main__"})  # noqa: S102 -- sipfw's own text
        code = 0
    finally:
        os._exit(code)
