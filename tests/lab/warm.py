"""Runs sipfw's commands in children of a process that has loaded it: no interpreter starts.

`run` is for tests that run many commands, `run_code` for code of the tests that uses sipfw; each
child has its own arguments, environment, files and network namespace, as a new process has. A
command's watchdog and the worker of libiptc are forks as well (`lab.forks`). What stands outside a
command's own process, such as how it is started or what its import costs, is for tests that start
one. Started as a program, this file is the process that waits: a line of JSON in, one out.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import sipfw
from lab import forks
from sipfw.cli import main
from sipfw.compiler.pipeline import compile_policy
from sipfw.kernel.backend import backend_of
from sipfw.policy.load import Request, load

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
                    [sys.executable, "-m", "lab.warm"],
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
    input: str = "",  # noqa: A002 -- named as in subprocess.run
    *,
    env: Mapping[str, str] | None = None,
    binds: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `sipfw WORDS` in a namespace and wait for its end.

    `binds` are files that it sees in the place of others: the one there, by the path it stands for.
    """
    # As `python -m sipfw` has it: a watchdog is started with it.
    program = str(Path(str(sipfw.__file__)).with_name("__main__.py"))
    request = _request(namespace, [program, *words], input, env, timeout)
    return _completed(["sipfw", *words], {**request, "binds": dict(binds or {})})


def run_code(
    namespace: str,
    code: str,
    *words: str,
    input: str = "",  # noqa: A002 -- named as in subprocess.run
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `python -c CODE WORDS` in a namespace and wait for its end."""
    request = _request(namespace, ["-c", *words], input, env, timeout)
    return _completed(["python", "-c", code, *words], {**request, "code": code})


def _request(
    namespace: str, argv: list[str], text: str, env: Mapping[str, str] | None, timeout: float
) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "argv": argv,
        "input": text,
        "env": {**os.environ, **(env or {})},
        "cwd": str(Path.cwd()),
        "timeout": timeout,
        "binds": {},
        "code": None,
    }


def _completed(
    words: Sequence[str], request: Mapping[str, Any]
) -> subprocess.CompletedProcess[str]:
    done = _SERVER.ask(request)
    if done["code"] is None:
        raise subprocess.TimeoutExpired(words, request["timeout"], done["out"], done["err"])
    return subprocess.CompletedProcess(words, done["code"], done["out"], done["err"])


def _serve() -> None:
    for module in pkgutil.walk_packages(sipfw.__path__, "sipfw."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # Templates are compiled at their first use.
    ruleset = compile_policy(load(Request()))
    for backend in ("iptables", "nftables"):
        backend_of(backend).listing(ruleset)
    # A collection in a child would write into, and so copy, every page that it shares with us.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with (
        tempfile.TemporaryFile() as text,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        text.write(request["input"].encode())
        text.seek(0)
        child = os.fork()
        if child == 0:
            _be_program(request, text, out, err)
        code = forks.wait(child, request["timeout"])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"code": code, "out": texts[0], "err": texts[1]}


def _be_program(request: dict[str, Any], text: IO[bytes], out: IO[bytes], err: IO[bytes]) -> None:
    """Become the command, or run the code. Never returns."""
    code: int | str | None = 1
    try:
        _enter(request["namespace"], request["binds"])
        for file, target in ((text, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), target)
        sys.stdin = os.fdopen(0, closefd=False)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = request["argv"]
        if request["code"] is None:
            forks.take_over()
            main()
        else:
            exec(request["code"], {"__name__": "__main__"})  # noqa: S102 -- a test's own text
        code = 0
    except SystemExit as ending:
        code = ending.code
    except BaseException:  # noqa: BLE001 -- what ends an interpreter with a traceback
        traceback.print_exc()
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
