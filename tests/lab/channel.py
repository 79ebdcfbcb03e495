"""Talk to the agent process of one namespace; knows the protocol and no operation."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, TypeAlias

# Whatever JSON can hold; each operation knows its own shape.
Json: TypeAlias = Any

TESTS = Path(__file__).resolve().parent.parent
# The lab speaks SIP with the words of `sipfw prove`.
_PATH = os.pathsep.join((str(TESTS), str(TESTS.parent / "src")))


class LabError(Exception):
    """The laboratory itself failed, so a test that meets this proves nothing."""


class Channel:
    """Start the agent on first use and ask it one thing at a time."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._agent: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, op: str, **arguments: Json) -> Json:
        """Return the agent's answer; raise OSError or ValueError as the agent met it."""
        with self._lock:
            answer = self._exchange(json.dumps({"op": op, **arguments}))
        if "ok" in answer:
            return answer["ok"]
        if answer["errno"] is None:
            raise ValueError(answer["error"])
        # OSError(number, text) makes the subclass itself: ConnectionRefusedError, TimeoutError.
        raise OSError(answer["errno"], answer["error"])

    @property
    def used(self) -> bool:
        """Return whether the agent was ever asked anything."""
        return self._agent is not None

    def close(self) -> None:
        agent, self._agent = self._agent, None
        if agent is None:
            return
        agent.kill()
        agent.wait()
        for stream in (agent.stdin, agent.stdout):
            if stream is not None:
                # The pipe of a killed agent may refuse the flush that close() implies.
                with contextlib.suppress(OSError):
                    stream.close()

    def _exchange(self, line: str) -> Json:
        if self._agent is None:
            self._agent = self._start()
        stdin, stdout = self._agent.stdin, self._agent.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(line + "\n")
            stdin.flush()
        answer = stdout.readline()
        if not answer:
            msg = f"agent of {self._namespace} ended with {self._agent.wait()}"
            raise LabError(msg)
        return json.loads(answer)

    def _start(self) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", self._namespace, sys.executable, "-m", "lab.agent"]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": _PATH},
            start_new_session=True,
        )
