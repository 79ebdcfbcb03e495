"""The process that watches one change and takes it back when its command cannot.

It has the change's token and nothing else of the command: no terminal, no session, no descriptor.
It acts when the command is dead (its lock is free) before the change has an end, or when a change
that waits for its confirmation has waited long enough. A journal that is gone, or that is another
change's, ends it.
"""

from __future__ import annotations

import os
import signal
import sys
import syslog
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.repair import now_live, undo, unfinished, what, why
from sipfw.errors import SipfwError
from sipfw.host.files import Layout
from sipfw.host.locks import try_state_lock, watchdog_lock
from sipfw.kernel.backend import Options

if TYPE_CHECKING:
    from sipfw.deploy.repair import Unfinished

# How long the watchdog of the change before may take to see that it is done.
_SUCCESSION = 5.0
_POLL = 0.05
# While it waits for a confirmation.
_LONG_POLL = 0.2
# A kernel that refuses, or a lock that another program holds, may come round.
_ATTEMPTS = 40
_LONGEST_PAUSE = 30.0


def main() -> None:
    """Become independent of the caller, be ready, then watch. Arguments: root folder, token."""
    layout, token = Layout(Path(sys.argv[1])), sys.argv[2]
    os.chdir("/")
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(PermissionError):
        os.setsid()  # systemd has made it one already
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os._exit(0 if os.read(ready, 1) else 1)
    os.close(ready)
    with watchdog_lock(layout, _SUCCESSION) as alone:
        if not alone or _mine(layout, token) is None:
            os._exit(1)
        os.write(tell, b"1")
        os.close(tell)
        watch(layout, token)
    os._exit(0)


def watch(layout: Layout, token: str) -> None:
    """Return when the change has an end, its own or the one made here."""
    pause = _POLL
    attempts = 0
    while (found := _mine(layout, token)) is not None and attempts < _ATTEMPTS:
        if found.open and found.journal.seconds_left() > 0:
            time.sleep(min(found.journal.seconds_left(), _LONG_POLL))
            continue
        with try_state_lock(layout, 0.0) as free:
            if free and _ended(layout, token):
                return
        if free:
            attempts += 1
            pause = min(2 * pause, _LONGEST_PAUSE)
        time.sleep(pause)


def _mine(layout: Layout, token: str) -> Unfinished | None:
    found = unfinished(layout)
    return found if found is not None and found.journal.token == token else None


def _ended(layout: Layout, token: str) -> bool:
    """Go back, unless the change has got its end meanwhile. False when that failed."""
    found = _mine(layout, token)
    if found is None or (found.open and found.journal.seconds_left() > 0):
        return found is None
    reason = why(found)
    try:
        undone = undo(layout, found.journal, Options(), reason)
    except SipfwError as error:
        _log(f"{what(found.journal)} cannot be taken back yet: {error}")
        return False
    _log(f"{what(found.journal)} was taken back: {reason}; {now_live(undone)}")
    for note in undone.notes:
        _log(note)
    return True


def _log(text: str) -> None:
    syslog.openlog("sipfw", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, "".join(c if c.isprintable() else "?" for c in text))
