"""UDP and TCP listeners that record and answer; run inside the agent, one thread each."""

from __future__ import annotations

import contextlib
import re
import select
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING

from lab.recorder import Record, Recorder
from lab.replies import Behaviour, Reply, behaviour

if TYPE_CHECKING:
    from collections.abc import Sequence

IP_PKTINFO = 8  # linux/in.h; the socket module has no name for it before Python 3.14
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; needs CAP_NET_ADMIN and ignores rmem_max
RECEIVE_BUFFER = 64 << 20
BACKLOG = 4096
FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}
CONTENT_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*:[ \t]*(\d+)", re.IGNORECASE)


def readable(sockets: Sequence[socket.socket], timeout: float) -> list[socket.socket]:
    """Return the sockets with something to read; poll, because select ends at descriptor 1023."""
    poller = select.poll()
    by_number = {}
    for each in sockets:
        # Another thread may have closed it, and then nothing is to be read from it.
        with contextlib.suppress(ValueError):
            poller.register(each, select.POLLIN)
            by_number[each.fileno()] = each
    return [by_number[number] for number, _ in poller.poll(max(0.0, timeout) * 1000)]


class Listener:
    """Own the sockets of one port and the thread that serves them."""

    kind: socket.SocketKind

    def __init__(self, port: int, family: str | None, reply: Reply, keep: int) -> None:
        self.recorder = Recorder(keep)
        self._behaviour: Behaviour = behaviour(reply)
        self._sockets: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        try:
            for name in FAMILIES if family is None else (family,):
                self._sockets.append(self._bound(FAMILIES[name], port))
        except OSError:
            self._release()
            raise
        for each in self._sockets:
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def behave(self, reply: Reply) -> None:
        self._behaviour = behaviour(reply)

    def pending(self) -> bool:
        return bool(readable(self._sockets, 0))

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        self._release()

    def _bound(self, family: socket.AddressFamily, port: int) -> socket.socket:
        listening = socket.socket(family, self.kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listening.bind(("", port))
        except OSError:
            listening.close()
            raise
        return listening

    def _release(self) -> None:
        for each in (*self._sockets, self._waker, self._wake):
            each.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                if ready is self._waker:
                    return
                if isinstance(ready, socket.socket):
                    self._receive(ready)

    def _receive(self, ready: socket.socket) -> None:
        raise NotImplementedError


class UdpListener(Listener):
    """Answer each datagram from the address it was sent to, as a switch does."""

    kind = socket.SOCK_DGRAM

    def _bound(self, family: socket.AddressFamily, port: int) -> socket.socket:
        listening = super()._bound(family, port)
        listening.settimeout(0)
        listening.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        if family == socket.AF_INET:
            listening.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        return listening

    def _receive(self, ready: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(256):
                payload, ancillary, _, peer = ready.recvmsg(65535, 64)
                own, pinned = _destination(ancillary)
                self.recorder.add(Record(peer[0], peer[1], own, 0, payload))
                for answer in self._behaviour(payload, own):
                    # No route back to a spoofed source is not the listener's failure.
                    with contextlib.suppress(OSError):
                        ready.sendmsg([answer], pinned, 0, peer)


def _destination(
    ancillary: list[tuple[int, int, bytes]],
) -> tuple[str, list[tuple[int, int, bytes]]]:
    """Return the address a datagram was sent to, and what makes the answer leave from it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            address = data[8:12]
            return socket.inet_ntoa(address), [(level, kind, struct.pack("=I4s4x", 0, address))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address = data[:16]
            pinned = [(level, kind, struct.pack("=16sI", address, 0))]
            return socket.inet_ntop(socket.AF_INET6, address), pinned
    return "", []


class TcpListener(Listener):
    """Record each received segment; answer each complete message of a connection."""

    kind = socket.SOCK_STREAM

    def __init__(self, port: int, family: str | None, reply: Reply, keep: int) -> None:
        self._unread: dict[socket.socket, bytes] = {}
        self._numbers: dict[socket.socket, int] = {}
        self.accepted = 0
        super().__init__(port, family, reply, keep)

    def pending(self) -> bool:
        return bool(readable([*self._sockets, *list(self._unread)], 0))

    def _bound(self, family: socket.AddressFamily, port: int) -> socket.socket:
        listening = super()._bound(family, port)
        listening.listen(BACKLOG)
        return listening

    def _release(self) -> None:
        for connection in self._unread:
            connection.close()
        super()._release()

    def _receive(self, ready: socket.socket) -> None:
        if ready in self._sockets:
            connection, _ = ready.accept()
            self.accepted += 1
            self._numbers[connection] = self.accepted
            self._unread[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)
            return
        try:
            self._read(ready)
        except OSError:
            self._drop(ready)

    def _read(self, connection: socket.socket) -> None:
        data = connection.recv(65535)
        if not data:
            self._drop(connection)
            return
        peer, own = connection.getpeername(), connection.getsockname()[0]
        self.recorder.add(Record(peer[0], peer[1], own, self._numbers[connection], data))
        messages, self._unread[connection] = split_messages(self._unread[connection] + data)
        for message in messages:
            for answer in self._behaviour(message, own):
                connection.sendall(answer)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._unread[connection], self._numbers[connection]
        connection.close()


def split_messages(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete SIP messages at the head of a stream, and what is left."""
    messages: list[bytes] = []
    while True:
        # CRLF between messages is a keep-alive (RFC 5626 3.5.1), not the end of a header.
        data = data.lstrip(b"\r\n")
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            return messages, data
        length = CONTENT_LENGTH.search(data, 0, head_end + 2)
        end = head_end + 4 + (int(length.group(1)) if length else 0)
        if len(data) < end:
            return messages, data
        messages.append(data[:end])
        data = data[end:]
