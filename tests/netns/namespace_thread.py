"""A thread that has moved into a network namespace; what it does and starts happens there."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLONE_NEWNET = 0x40000000


def thread_inside(namespace: str) -> ThreadPoolExecutor:
    """Return an executor of one thread that works in the namespace."""

    def enter() -> None:
        with Path("/run/netns", namespace).open("rb") as place:
            libc = ctypes.CDLL(None, use_errno=True)
            # Only this thread moves; os.setns came with Python 3.12.
            moved = libc.setns(place.fileno(), CLONE_NEWNET)
            assert moved == 0, os.strerror(ctypes.get_errno())

    return ThreadPoolExecutor(1, initializer=enter)
