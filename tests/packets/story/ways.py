"""How a phone's messages travel: datagrams, or a connection with or without TLS."""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from lab.listeners import split_messages

if TYPE_CHECKING:
    import socket

    from packets.evidence.wire import Place


class Way(Protocol):
    """One end of it; `receive` returns None at the end of the time."""

    reliable: bool

    def send(self, message: bytes) -> None: ...

    def receive(self, timeout: float) -> bytes | None: ...


class Datagrams:
    """One port, and one place to which everything goes."""

    reliable = False

    def __init__(self, opened: socket.socket, target: Place) -> None:
        self.socket, self._target = opened, target

    def send(self, message: bytes) -> None:
        self.socket.sendto(message, self._target)

    def receive(self, timeout: float) -> bytes | None:
        self.socket.settimeout(max(0.0, timeout))
        try:
            return self.socket.recv(65535)
        except (TimeoutError, BlockingIOError):
            return None


class Stream:
    """A connection; `over` once the other side has ended it."""

    reliable = True

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.over = False
        self.sent = 0
        self._rest = b""
        self._messages: deque[bytes] = deque()

    def send(self, message: bytes) -> None:
        self.sent += len(message)
        self.socket.settimeout(2.0)
        try:
            self.socket.sendall(message)
        except OSError:
            self.over = True

    def receive(self, timeout: float) -> bytes | None:
        deadline = time.monotonic() + timeout
        while not self._messages and not self.over:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            self._read()
        if not self._messages:
            # Nobody waits on a dead connection in a loop without a pause.
            time.sleep(min(max(0.0, deadline - time.monotonic()), 0.05))
            return None
        return self._messages.popleft()

    def _read(self) -> None:
        try:
            piece = self.socket.recv(65535)
        except TimeoutError:
            return
        except OSError:
            piece = b""
        self.over = not piece
        found, self._rest = split_messages(self._rest + piece)
        self._messages.extend(found)

    def ended(self, timeout: float = 0.0) -> bool:
        """Tell whether the other side has ended it."""
        with contextlib.suppress(OSError):
            if not self.over and select.select([self.socket], [], [], timeout)[0]:
                self._read()
        return self.over


def encrypted(opened: socket.socket) -> ssl.SSLSocket:
    """Say hello as TLS; the certificate was made by nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opened.settimeout(3.0)
    return context.wrap_socket(opened)
