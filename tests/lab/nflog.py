"""Read what rules send to an NFLOG group of one namespace (linux/netfilter/nfnetlink_log.h)."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.channel import LabError

if TYPE_CHECKING:
    from types import TracebackType

_CLONE_NEWNET = 0x40000000
_NETLINK_NETFILTER = 12
_SUBSYS_ULOG = 4
_PACKET, _CONFIG = _SUBSYS_ULOG << 8, _SUBSYS_ULOG << 8 | 1
_REQUEST_ACK = 1 | 4
_ERROR = 2

# Configuration: bind to a group, copy whole packets, wait for no second one.
_CMD, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = b"\x01", struct.pack("!IBx", 0xFFFF, 2)
# Attributes of a logged packet.
_PAYLOAD, _PREFIX = 9, 10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Logged:
    """One log entry: the prefix, and the packet from its IP header on."""

    prefix: str
    packet: bytes

    @property
    def family(self) -> str:
        return "ip6" if self.packet[0] >> 4 == 6 else "ip"


class NflogReader:
    """Listens from its making until `close`; its socket stays in the namespace."""

    def __init__(self, namespace: str, group: int) -> None:
        with ThreadPoolExecutor(1) as thread:
            self._socket = thread.submit(_socket_inside, namespace).result()
        self._socket.settimeout(5)
        try:
            self._configure(group, _CMD, _BIND)
            self._configure(group, _MODE, _COPY_PACKET)
            self._configure(group, _THRESHOLD, struct.pack("!I", 1))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def settle(self, quiet: float = 0.1) -> list[Logged]:
        """Return what has come since the last call, once nothing came for `quiet` seconds."""
        found: list[Logged] = []
        deadline = time.monotonic() + 10
        while select.select([self._socket], [], [], quiet)[0]:
            found += [_logged(data) for kind, data in self._messages() if kind == _PACKET]
            if time.monotonic() > deadline:
                msg = f"packets are still logged after 10 s, {len(found)} of them"
                raise TimeoutError(msg)
        return found

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        body = struct.pack("=BB", socket.AF_UNSPEC, 0) + struct.pack("!H", group)
        body += _padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)
        self._socket.send(
            _HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST_ACK, 1, 0) + body
        )
        for answer, data in self._messages():
            code = struct.unpack_from("=i", data)[0]
            if answer == _ERROR and code:
                msg = f"cannot listen to NFLOG group {group}: {os.strerror(-code)}"
                raise LabError(msg)

    def _messages(self) -> list[tuple[int, bytes]]:
        """Return type and content of each netlink message of one datagram."""
        data = self._socket.recv(1 << 20)
        found = []
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            found.append((kind, data[_HEADER.size : length]))
            data = data[length + -length % 4 :]
        return found


def _socket_inside(namespace: str) -> socket.socket:
    """Open the socket in the namespace: only the thread that runs this moves."""
    with Path("/run/netns", namespace).open("rb") as place:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(place.fileno(), _CLONE_NEWNET) != 0:
            raise LabError(os.strerror(ctypes.get_errno()))
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _logged(data: bytes) -> Logged:
    attributes = {}
    rest = data[4:]  # behind struct nfgenmsg
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        attributes[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[length + -length % 4 :]
    return Logged(attributes[_PREFIX].rstrip(b"\0").decode(), attributes[_PAYLOAD])
