"""Runs sipfw's commands in children of a process that has loaded it: no interpreter starts.

`run` is for tests that run many commands; each child has its own arguments, environment, files and
network namespace, as a new process has. What stands outside a command's own process, such as how it
is started or what its import costs, is for tests that start one. Started as a program, this file is
the process that waits: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import sipfw
from sipfw.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TESTS = Path(__file__).resolve().parent.parent
_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000


class _Server:
    """The process that waits, started at its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, str(Path(__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=_TESTS,
                )
                atexit.register(self.close)
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None
            assert stdout is not None
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            found: dict[str, Any] = json.loads(stdout.readline())
            return found

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


_SERVER = _Server()


def run(
    namespace: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    binds: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `sipfw WORDS` in a namespace and wait for its end.

    `binds` are files that it sees in the place of others: the one there, by the path it stands for.
    """
    done = _SERVER.ask(
        {
            "namespace": namespace,
            "words": list(words),
            "env": {**os.environ, **(env or {})},
            "cwd": str(Path.cwd()),
            "binds": dict(binds or {}),
            "timeout": timeout,
        }
    )
    if done["code"] is None:
        raise subprocess.TimeoutExpired(["sipfw", *words], timeout, done["out"], done["err"])
    return subprocess.CompletedProcess(["sipfw", *words], done["code"], done["out"], done["err"])


def _serve() -> None:
    for module in pkgutil.walk_packages(sipfw.__path__, "sipfw."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _be_sipfw(request, out, err)
        code = _wait(child, request["timeout"])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"code": code, "out": texts[0], "err": texts[1]}


def _wait(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    pause = 0.002
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _be_sipfw(request: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> None:
    """Become the command. Never returns."""
    code: int | str | None = 99
    try:
        _enter(request["namespace"], request["binds"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, target in ((nothing, 0), (out.fileno(), 1), (err.fileno(), 2)):
            os.dup2(descriptor, target)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        # As `python -m sipfw` has it: a guardian is started with it.
        sys.argv = [str(Path(str(sipfw.__file__)).with_name("__main__.py")), *request["words"]]
        main()
        code = 0
    except SystemExit as ending:
        code = ending.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _enter(namespace: str, binds: Mapping[str, str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open("rb") as place:
        codes = [libc.setns(place.fileno(), _CLONE_NEWNET)]
    if binds:
        codes += [
            libc.unshare(_CLONE_NEWNS),
            libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None),
            *(
                libc.mount(source.encode(), target.encode(), None, _MS_BIND, None)
                for target, source in binds.items()
            ),
        ]
    if any(codes):
        raise OSError(ctypes.get_errno(), "cannot enter the namespaces")


if __name__ == "__main__":
    _serve()
