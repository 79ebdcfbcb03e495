"""Namespaces that nobody else is in, and that end with the process that made them.

The stage has no name and no file on this host: its network namespaces, its processes and its
folder live in namespaces of a child, and the kernel ends them with it, also after a kill -9.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipfw.errors import BackendError, SipfwError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# linux/sched.h, linux/mount.h, linux/prctl.h
_NEWNS, _NEWUSER, _NEWPID, NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
# A tmpfs of the stage's own lies over it, so that also the lock of xtables is not the host's.
_RUN = "/run"
SCRATCH = Path(_RUN, "sipfw-prove")

_libc = ctypes.CDLL(None, use_errno=True)

Event = dict[str, Any]


def on_stage(play: Callable[[Callable[[Event], None]], None]) -> Generator[Event]:
    """Run `play` in a child with namespaces of its own and yield what it tells.

    Raises BackendError where the kernel allows no namespaces, or where the play fails.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _in_child(play, writer, parent)
    os.close(writer)
    try:
        with os.fdopen(reader, encoding="utf-8") as lines:
            for line in lines:
                event: Event = json.loads(line)
                if "failed" in event:
                    raise BackendError(event["failed"], hint=event.get("hint"))
                yield event
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            child = 0
            raise BackendError("the proof ended before its end")
        child = 0
    finally:
        if child:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def new_network() -> None:
    """Leave the network namespace for a new one."""
    _checked(_libc.unshare(NEWNET), "a network namespace")


def die_with_parent(parent: int) -> None:
    """End this process when the one that forked it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _in_child(play: Callable[[Callable[[Event], None]], None], writer: int, parent: int) -> None:
    """Never return: make the namespaces and become the keeper of the process in them."""
    code = 1
    try:
        with os.fdopen(writer, "w", encoding="utf-8") as out:

            def tell(event: Event) -> None:
                out.write(json.dumps(event) + "\n")
                out.flush()

            try:
                # The parent answers Ctrl-C, for all of us.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                die_with_parent(parent)
                _leave_the_host()
                code = _first_process(play, tell)
            except SipfwError as error:
                hint = getattr(error, "hint", None)
                tell({"failed": getattr(error, "message", str(error)), "hint": hint})
            except Exception as error:  # noqa: BLE001 - a fork has nobody above who would say it
                tell({"failed": f"the proof failed: {type(error).__name__}: {error}"})
    finally:
        os._exit(code)


def _leave_the_host() -> None:
    spaces = _NEWNS | _NEWPID | NEWNET
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        spaces |= _NEWUSER
    _checked(_libc.unshare(spaces), "namespaces of its own")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _first_process(
    play: Callable[[Callable[[Event], None]], None], tell: Callable[[Event], None]
) -> int:
    """Play as the first process of the new process namespace: with it all others end."""
    keeper = os.getpid()
    first = os.fork()
    if first:
        return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    code = 1
    try:
        # Seen from inside, the keeper is outside and has no number.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        del keeper
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        _mount("tmpfs", _RUN, "tmpfs", _MS_NOSUID | _MS_NODEV)
        SCRATCH.mkdir(mode=0o700)
        play(tell)
        code = 0
    except SipfwError as error:
        tell(
            {"failed": getattr(error, "message", str(error)), "hint": getattr(error, "hint", None)}
        )
    except Exception as error:  # noqa: BLE001 - as above
        tell({"failed": f"the proof failed: {type(error).__name__}: {error}"})
    finally:
        os._exit(code)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    done = _libc.mount(
        source.encode(), target.encode(), None if kind is None else kind.encode(), flags, None
    )
    _checked(done, f"a {kind or 'private'} mount on {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno()).lower()
        raise BackendError(
            f"the kernel does not allow {what}: {reason}",
            hint="run it as root, outside a container",
        )
