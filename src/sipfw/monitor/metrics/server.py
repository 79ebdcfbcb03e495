"""The exporter: answers scrapes over HTTP, and lets no client hold it up.

Each connection is one request with a deadline. When as many are open as there may be, the one that
has waited longest with its request makes room, so slow clients only push out each other.
"""

from __future__ import annotations

import signal
import socket
import socketserver
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.monitor.metrics.http import LONGEST_HEAD, HttpResponse, best_format, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sipfw.monitor.metrics.address import ListenAddress
    from sipfw.monitor.metrics.http import HttpRequest
    from sipfw.monitor.metrics.text import Format

MOST_CONNECTIONS = 16
_TO_ASK = 3.0
_TO_TAKE = 5.0

_INDEX = """<!DOCTYPE html>
<html lang="en"><title>sipfw</title><p><a href="/metrics">metrics of sipfw</a></p></html>
"""


class Exporter(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens from its making on. `page` makes the metrics, `say` tells the operator."""

    daemon_threads = True
    allow_reuse_address = True
    # A burst of connections waits here; beyond it a SYN is lost, which costs its sender a second.
    request_queue_size = 128

    def __init__(
        self, address: ListenAddress, page: Callable[[Format], str], say: Callable[[str], None]
    ) -> None:
        self.address_family = socket.AF_INET6 if address.six else socket.AF_INET
        self.page = page
        self._say = say
        self._lock = threading.Lock()
        self._open = 0
        # In the order of their coming; those that have asked are no longer in it.
        self._asking: dict[socket.socket, None] = {}
        try:
            super().__init__((address.host, address.port), _Handler)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BackendError(
                f"cannot listen on {address}: {reason}",
                hint="name another one with --listen ADDRESS:PORT",
            ) from error

    def server_bind(self) -> None:
        """Bind to the address and nothing else: `::` does not mean IPv4 as well."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()

    def process_request(self, request: object, client_address: object) -> None:
        """Begin a thread for a connection, if there is room."""
        assert isinstance(request, socket.socket)  # noqa: S101 -- what a TCPServer accepts
        with self._lock:
            if self._open >= MOST_CONNECTIONS and not self._make_room():
                self._refuse(request)
                return
            self._open += 1
            self._asking[request] = None
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def _make_room(self) -> bool:
        longest = next(iter(self._asking), None)
        if longest is None:
            return False
        del self._asking[longest]
        # Its thread wakes from recv() and closes it.
        with suppress(OSError):
            longest.shutdown(socket.SHUT_RDWR)
        return True

    def _refuse(self, request: socket.socket) -> None:
        busy = HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        with suppress(OSError):
            request.settimeout(0.0)
            request.send(busy.encode())
        self.shutdown_request(request)

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Serve one connection to its end."""
        assert isinstance(request, socket.socket)  # noqa: S101 -- see process_request
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def has_asked(self, request: socket.socket) -> None:
        """Note that a connection has sent its request and makes no room any more."""
        with self._lock:
            self._asking.pop(request, None)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open -= 1
            self._asking.pop(request, None)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in one line what went wrong; a client that has gone is nothing wrong."""
        del request, client_address
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self._say(f"a fault in sipfw itself: {type(error).__name__}: {error}")


class _Handler(socketserver.BaseRequestHandler):
    """Reads one request, writes one answer."""

    request: socket.socket
    server: Exporter

    def handle(self) -> None:
        """Serve the connection."""
        head = _read_head(self.request, time.monotonic() + _TO_ASK)
        if head is None:
            return
        self.server.has_asked(self.request)
        asked = parse(head)
        try:
            answer = _answer(asked, self.server.page)
        except Exception:
            self._send(HttpResponse(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault in sipfw\n"), asked)
            raise
        self._send(answer, asked)

    def _send(self, answer: HttpResponse, asked: HttpRequest | None) -> None:
        # The time-out of sendall() is for all of it together.
        self.request.settimeout(_TO_TAKE)
        self.request.sendall(answer.encode(head_only=asked is not None and asked.method == "HEAD"))


def _read_head(client: socket.socket, deadline: float) -> bytes | None:
    """Return the head of a request; None when it does not come in time, or is cut off.

    A head that is too long is returned as it is: it cannot be read and gets its answer.
    """
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= LONGEST_HEAD:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        client.settimeout(left)
        try:
            more = client.recv(4096)
        except OSError:
            return None
        if not more:
            return None
        head += more
    return head.partition(b"\r\n\r\n")[0] if len(head) <= LONGEST_HEAD else b""


def _answer(asked: HttpRequest | None, page: Callable[[Format], str]) -> HttpResponse:
    if asked is None:
        return HttpResponse(HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1\n")
    if asked.path not in {"/", "/metrics"}:
        return HttpResponse(HTTPStatus.NOT_FOUND, "only /metrics is here\n")
    if asked.method not in {"GET", "HEAD"}:
        allowed = {"Allow": "GET, HEAD"}
        return HttpResponse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD\n", headers=allowed)
    if asked.path == "/":
        return HttpResponse(HTTPStatus.OK, _INDEX, "text/html; charset=utf-8")
    form = best_format(asked.accept)
    return HttpResponse(HTTPStatus.OK, page(form), form.content_type, {"Vary": "Accept"})


@contextmanager
def until_told_to_end() -> Iterator[threading.Event]:
    """Yield what SIGTERM and SIGINT set; afterwards they mean what they meant before."""
    told = threading.Event()
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: told.set()) for number in wanted}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(exporter: Exporter, told: threading.Event) -> None:
    """Answer until told to end."""
    # shutdown() waits for serve_forever(), so the two need a thread each.
    loop = threading.Thread(target=exporter.serve_forever, kwargs={"poll_interval": 0.2})
    loop.start()
    try:
        told.wait()
    finally:
        exporter.shutdown()
        loop.join()
        exporter.server_close()
