"""Watchdogs and workers as forks of the process that starts them, where tests start hundreds.

`spawn` takes the place of `os.posix_spawn`, and `run` that of the runner's method for Python of
sipfw's own. The fork runs the same code on the command line's own words, and has what an exec
gives: no descriptor of the caller's, the given environment, signals as at birth. What the start
of an interpreter itself may do is for tests that start one.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import sipfw.deploy.watchdog  # noqa: F401 -- what it runs, loaded once
from sipfw.errors import BackendError
from sipfw.host.runner import HOST_PATH, Completed, SubprocessRunner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Open, as posix_spawn is told it: the action, the descriptor, the path, the flags, the mode.
FileAction = tuple[int, int, str, int, int]

_run_program = SubprocessRunner.run


def take_over() -> None:
    """Have this process fork its watchdogs and workers from now on."""
    os.posix_spawn = spawn  # type: ignore[assignment]
    SubprocessRunner.run = run  # type: ignore[method-assign]


def run(
    runner: SubprocessRunner,
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 30.0,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program, or Python code of sipfw's in a fork."""
    if tuple(argv[:3]) != (sys.executable, "-I", "-c"):
        return _run_program(runner, argv, stdin=stdin, timeout=timeout, env=env)
    # Not files: a test may count what a command makes and removes.
    files = [os.fdopen(os.memfd_create(name), "w+b") for name in ("in", "out", "err")]
    with files[0] as given, files[1] as out, files[2] as err:
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.flush()
        opened = [
            (os.POSIX_SPAWN_OPEN, number, f"/proc/{os.getpid()}/fd/{file.fileno()}", flags, 0)
            for number, (file, flags) in enumerate(
                ((given, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))
            )
        ]
        whole = {"PATH": HOST_PATH, "LC_ALL": "C", **(env or {})}
        child = spawn(argv[0], argv, whole, file_actions=opened, setsigmask=[])
        code = wait(child, timeout)
        if code is None:
            raise BackendError(f"{argv[0]}: no answer within {timeout:g} s, ended")
        for file in (out, err):
            file.seek(0)
        texts = [file.read().decode("utf-8", "surrogateescape") for file in (out, err)]
        return Completed(code, *texts)


def wait(child: int, seconds: float) -> int | None:
    """Return the exit code of a child, or end it after so long and return None."""
    ended = os.pidfd_open(child)
    try:
        in_time = bool(select.select([ended], [], [], seconds)[0])
    finally:
        os.close(ended)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) if in_time else None


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
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
        )
        exec(text, {"__name__": "__main__"})  # noqa: S102 -- sipfw's own text
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 -- what ends an interpreter with a traceback
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
