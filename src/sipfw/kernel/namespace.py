"""Runs host programs in a network namespace that one child process makes for itself alone.

The kernel judges a whole ruleset there before the host's own is touched. The namespace ends with
the child.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.child import child_command
from sipfw.host.runner import Completed, SubprocessRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.host.runner import Runner

_CLONE_NEWNET = 0x40000000
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One program with its input."""

    argv: tuple[str, ...]
    stdin: str = ""


def run_in_scratch(
    runner: Runner, steps: Sequence[ProgramRun], *, to_the_end: bool = False
) -> tuple[Completed, ...] | None:
    """Run the steps up to the first that fails; None where no namespace can be made.

    With `to_the_end` a failure does not stop the others, and a missing program is one. A container
    without CAP_SYS_ADMIN may own its packet filter and still not make a namespace.
    """
    request = json.dumps([to_the_end, *(asdict(step) for step in steps)])
    done = runner.run(child_command(__name__, "serve"), stdin=request, timeout=_TIMEOUT)
    if done.returncode != 0 or not done.stdout:
        return None
    return tuple(Completed(**item) for item in json.loads(done.stdout))


def serve() -> None:
    """Leave the network namespace, do the steps on standard input and print what they left."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        sys.exit(f"no scratch network namespace: {os.strerror(code)} ({errno.errorcode[code]})")
    results = []
    to_the_end, *steps = json.load(sys.stdin)
    for step in steps:
        try:
            done = SubprocessRunner().run(step["argv"], stdin=step["stdin"])
        except BackendError as error:
            if not to_the_end:
                raise
            done = Completed(127, "", str(error))
        results.append(asdict(done))
        if done.returncode != 0 and not to_the_end:
            break
    json.dump(results, sys.stdout)
