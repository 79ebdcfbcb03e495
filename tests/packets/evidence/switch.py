"""A switch that plays a script: what it heard, and the answers that a test wants from it.

One thread serves its UDP and TCP sockets; an answerer turns a request into responses, each of
them some seconds later. Knows no firewall.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lab.listeners import split_messages
from packets.evidence.wire import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab import Lab
    from packets.evidence.wire import Wire

# Seconds to wait, and what to say then.
Answer: TypeAlias = tuple[float, bytes]
Answerer: TypeAlias = Callable[[bytes], list[Answer]]
Way: TypeAlias = tuple[socket.socket, Place | None]


@dataclass(frozen=True, slots=True)
class Heard:
    """One datagram or one read of a connection, as the switch got it."""

    transport: str
    source: str
    port: int
    local_port: int
    payload: bytes

    @property
    def method(self) -> str:
        return self.payload[:32].split(b" ", 1)[0].decode("latin-1")


class FakeSwitch:
    """Listen on both families of a port in the switch's namespace and on TCP ports beside it."""

    def __init__(
        self, lab: Lab, wire: Wire, answer: Answerer, tcp_ports: Sequence[int] = ()
    ) -> None:
        self._lab, self._wire, self._answer = lab, wire, answer
        self._udp = {each: wire.udp(lab.switch, (each, 5060)) for each in ("0.0.0.0", "::")}
        self._listening = [
            wire.listening(lab.switch, (each, port)) for each in self._udp for port in tcp_ports
        ]
        self._unread: dict[socket.socket, bytes] = {}
        self._heard: list[Heard] = []
        self._last = 0.0
        self._later: list[tuple[float, int, Way, bytes]] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()
        for each in (*self._udp.values(), *self._listening):
            each.settimeout(0.0)
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def behave(self, answer: Answerer) -> None:
        self._answer = answer

    def say(self, target: Place, payload: bytes) -> None:
        """Send a datagram from port 5060, whatever it is."""
        self._udp["::" if ":" in target[0] else "0.0.0.0"].sendto(payload, target)

    def connect(self, source: Place, target: Place) -> socket.socket:
        """Open a connection to somebody and serve it like one that he has opened."""
        opened = self._wire.tcp(self._lab.switch, source, target)
        opened.settimeout(0.0)
        self._unread[opened] = b""
        self._selector.register(opened, selectors.EVENT_READ)
        return opened

    def say_on(self, peer: Place, payload: bytes) -> None:
        """Say something on the connection to that place."""
        for each in list(self._unread):
            if each.getpeername()[:2] == peer:
                _write((each, None), payload)

    def heard(
        self, text: bytes = b"", *, source: str | None = None, port: int | None = None
    ) -> list[Heard]:
        """Return what arrived with this text in it, from this source and source port."""
        return [
            each
            for each in list(self._heard)
            if text in each.payload and source in (None, each.source) and port in (None, each.port)
        ]

    def settled(
        self, text: bytes = b"", *, source: str | None = None, port: int | None = None
    ) -> int:
        """Return how often that arrived, once nothing has arrived for a while."""
        self.rest()
        return len(self.heard(text, source=source, port=port))

    def rest(self, quiet: float = 0.06) -> None:
        started = time.monotonic()
        while time.monotonic() < max(self._last, started) + quiet:
            time.sleep(0.01)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for each in self._unread:
            each.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            patience = self._later[0][0] - time.monotonic() if self._later else 0.05
            for key, _ in self._selector.select(min(0.05, max(0.0, patience))):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    self._receive(key.fileobj)
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, way, payload = heapq.heappop(self._later)
                _write(way, payload)

    def _receive(self, ready: socket.socket) -> None:
        if ready in self._listening:
            opened, _ = ready.accept()
            opened.settimeout(0.0)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._unread[opened] = b""
            self._selector.register(opened, selectors.EVENT_READ)
        elif ready in self._unread:
            self._read(ready)
        else:
            for _ in range(64):
                payload, peer = ready.recvfrom(65535)
                self._note("udp", peer, 5060, payload)
                self._reply((ready, peer[:2]), payload)

    def _read(self, ready: socket.socket) -> None:
        try:
            peer, own = ready.getpeername(), ready.getsockname()
            data = ready.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(ready)
            del self._unread[ready]
            ready.close()
            return
        self._note("tcp", peer, own[1], data)
        messages, self._unread[ready] = split_messages(self._unread[ready] + data)
        for message in messages:
            self._reply((ready, None), message)

    def _note(self, transport: str, peer: Place, own_port: int, payload: bytes) -> None:
        self._last = time.monotonic()
        self._heard.append(Heard(transport, peer[0], peer[1], own_port, payload))

    def _reply(self, way: Way, payload: bytes) -> None:
        for delay, answer in self._answer(payload):
            if delay:
                due = time.monotonic() + delay
                heapq.heappush(self._later, (due, next(self._numbers), way, answer))
            else:
                _write(way, answer)


def _write(way: Way, payload: bytes) -> None:
    opened, target = way
    # Nobody may be there any more, and that is not the switch's failure.
    with contextlib.suppress(OSError):
        if target is None:
            opened.sendall(payload)
        else:
            opened.sendto(payload, target)
