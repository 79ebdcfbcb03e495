"""An HTTP server for block lists that can misbehave: how, the last word of the path says.

Speaks raw bytes, because no HTTP library lets a server lie like this. Run as a program it prints
its port; the folder holds the lists that it serves when it behaves.
"""

from __future__ import annotations

import gzip
import socketserver
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\n"
# No test waits longer, and no thread lives longer.
PATIENCE = 45.0
BIG = 48 << 20


def sized(body: bytes, *more: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in more)
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Handler(socketserver.BaseRequestHandler):
    """One request."""

    server: FeedServer

    def handle(self) -> None:
        with suppress(OSError):
            self.request.settimeout(PATIENCE)
            head = b""
            while b"\r\n\r\n" not in head and (part := self.request.recv(65536)):
                head += part
            path = head.split(b" ")[1].decode("ascii") if b" " in head else "/"
            self.server.asked.append(head.decode("latin-1"))
            how = path.rpartition("/")[2]
            if self.server.behaves() or how not in MODES:
                self.good(head, path)
            else:
                MODES[how](self)

    def good(self, head: bytes, path: str) -> None:
        data = self.server.list_for(path)
        tag = b'"%d-%d"' % (len(data), sum(data))
        if b"If-None-Match: " + tag in head:
            self.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            self.send(sized(data, b"ETag: " + tag))

    def send(self, data: bytes) -> None:
        self.request.sendall(data)

    def status(self, line: bytes, *more: bytes) -> None:
        head = b"".join(item + b"\r\n" for item in more)
        self.send(b"HTTP/1.1 " + line + b"\r\n" + head + b"Content-Length: 0\r\n\r\n")

    def hang(self) -> None:
        self.server.stopped.wait(PATIENCE)

    def trickle(self, head: bytes, drop: bytes) -> None:
        self.send(head)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self.server.stopped.wait(0.2):
            self.send(drop)

    def endless(self) -> None:
        """A gigabyte, if anybody takes it."""
        self.send(OK + b"\r\n")
        for _ in range(1 << 14):
            self.send(b"203.0.113.9\n" * 5461)

    def many_lines(self) -> None:
        lines = "".join(
            f"{n >> 16 & 127 | 16}.{n >> 8 & 255}.{n & 255}.1\n" for n in range(1 << 17)
        )
        self.send(sized(gzip.compress(lines.encode(), 1), b"Content-Encoding: gzip"))

    def location(self, target: bytes) -> None:
        self.status(b"302 Found", b"Location: " + target)


def redirect_loop(it: Handler) -> None:
    it.location(b"/redirect-loop")


LOGIN = (
    b"<html><head><title>Login</title></head>\n<body>\n<form>203.0.113.66</form>\n</body></html>\n"
)
INJECTION = (
    b"203.0.113.9; flush ruleset\n203.0.113.10 timeout 0\n203.0.113.11\x00\n$(reboot)\n"
    b"203.0.113.12 nomatch\n-exist\n203.0.113.13,203.0.113.14\n'\"`|&\nadd sipfw-x 203.0.113.15\n"
    b"203.0.113.16 } ; delete table inet sipfw\n"
)

MODES: dict[str, Callable[[Handler], None]] = {
    "404": lambda it: it.status(b"404 Not Found"),
    "500": lambda it: it.status(b"500 Oops"),
    "401": lambda it: it.status(b"401 Unauthorized", b'WWW-Authenticate: Basic realm="x"'),
    "304-unasked": lambda it: it.status(b"304 Not Modified"),
    "empty": lambda it: it.send(sized(b"")),
    "comments-only": lambda it: it.send(sized(b"# nothing today\n\n; really\n")),
    "shrunk": lambda it: it.send(sized(b"203.0.113.9\n203.0.113.11\n203.0.113.13\n")),
    "hang": Handler.hang,
    "slow-body": lambda it: it.trickle(OK + b"Content-Length: 100000\r\n\r\n", b"2"),
    "slow-head": lambda it: it.trickle(OK + b"X-Long: ", b"a"),
    "endless": Handler.endless,
    "bomb": lambda it: it.send(sized(gzip.compress(bytes(BIG)), b"Content-Encoding: gzip")),
    "bad-gzip": lambda it: it.send(sized(b"\x1f\x8b\x08nonsense", b"Content-Encoding: gzip")),
    "half-gzip": lambda it: it.send(
        sized(gzip.compress(b"203.0.113.9\n" * 999)[:-12], b"Content-Encoding: gzip")
    ),
    "brotli": lambda it: it.send(sized(b"203.0.113.9\n", b"Content-Encoding: br")),
    "redirect-loop": redirect_loop,
    "redirect-file": lambda it: it.location(b"file:///etc/shadow"),
    "redirect-ftp": lambda it: it.location(b"ftp://127.0.0.1/list"),
    "redirect-user": lambda it: it.location(b"http://root:secret@127.0.0.1/list"),
    "redirect-nowhere": lambda it: it.status(b"302 Found"),
    "redirect-broken": lambda it: it.location(b"http://[half"),
    "garbage": lambda it: it.send(sized(bytes(range(256)) * 64)),
    "no-http": lambda it: it.send(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "login": lambda it: it.send(sized(LOGIN, b"Content-Type: text/html")),
    "cut": lambda it: it.send(OK + b"Content-Length: 5000\r\n\r\n203.0.113.9\n"),
    "cut-chunk": lambda it: it.send(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n203.0.113.9\n"),
    "cut-line": lambda it: it.send(b"HTTP/1.0 200 OK\r\n\r\n203.0.113.9\n203.0.113.1"),
    "wrong-length": lambda it: it.send(OK + b"Content-Length: -5\r\n\r\n203.0.113.9\n203.0.1"),
    "injection": lambda it: it.send(sized(INJECTION)),
    "everybody": lambda it: it.send(sized(b"0.0.0.0/0\n::/0\n0.0.0.0/1\n128.0.0.0/1\n")),
    "private": lambda it: it.send(sized(PRIVATE)),
    "many-lines": Handler.many_lines,
    "many-headers": lambda it: it.send(OK + b"X: y\r\n" * 5000 + b"\r\n203.0.113.9\n"),
    "rude": lambda it: it.request.close(),
}
PRIVATE = b"127.0.0.0/8\n169.254.0.0/16\n224.0.0.1\n255.255.255.255\n::1\nfe80::/10\nff00::/8\n"


class FeedServer(socketserver.ThreadingTCPServer):
    """Serves `folder`; misbehaves from the moment on that it has a file `misbehave`."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.stopped = threading.Event()
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def behaves(self) -> bool:
        return not (self.folder / "misbehave").exists()

    def list_for(self, path: str) -> bytes:
        """Return the list of that path, or the one for all."""
        own = self.folder / path.rpartition("/")[2]
        return (own if own.is_file() else self.folder / "list").read_bytes()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


@contextmanager
def running(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[FeedServer]:
    with FeedServer(folder, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()


def main() -> None:
    with running(Path(sys.argv[1])) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
