"""Listens to an NFLOG group of this network namespace: which rule logged whose packet.

Only while it listens does the kernel copy anything to it; no rule is changed. What is copied is cut
to the headers, and a reader that is too slow loses packets instead of holding the kernel up.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.kernel.netlink.socket import attribute, attributes, datagram, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.ruleset.addresses import IpAddress


# linux/netfilter/nfnetlink_log.h.
_NETLINK_NETFILTER = 12
_SUBSYS_ULOG = 4
_PACKET, _CONFIG = _SUBSYS_ULOG << 8, (_SUBSYS_ULOG << 8) | 1
_REQUEST_ACK = 0x5
_ERROR = 2
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_THRESHOLD = 1, 2, 4, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10

_HEADER = struct.Struct("=IHHII")
# Enough for an IPv6 header; extension headers and the SIP message are nobody's business here.
_COPIED = 64
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Logged:
    """One logged packet: the rule's prefix, the source, and when it was read."""

    prefix: str
    source: IpAddress
    moment: float


def listen(group: int, seconds: float, most: int) -> list[Logged]:
    """Return what is logged to the group in the next `seconds`, at most `most` packets.

    Raises BackendError where another program has the group: the kernel gives it to one only.
    """
    found: list[Logged] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as channel:
        channel.settimeout(5.0)
        channel.bind((0, 0))
        _configure(channel, group)
        until = time.monotonic() + seconds
        while len(found) < most and (left := until - time.monotonic()) > 0:
            if select.select([channel], [], [], left)[0]:
                found += _received(channel)
    return found[:most]


def _configure(channel: socket.socket, group: int) -> None:
    commands = (
        (_CFG_CMD, struct.pack("B", _BIND)),
        (_CFG_MODE, struct.pack("!IBx", _COPIED, _COPY_PACKET)),
        # In hundredths of a second; and as many packets may come in one message.
        (_CFG_TIMEOUT, struct.pack("!I", 10)),
        (_CFG_THRESHOLD, struct.pack("!I", 64)),
    )
    for sequence, (kind, value) in enumerate(commands, start=1):
        body = struct.pack("!BBH", socket.AF_UNSPEC, 0, group) + attribute(kind, value)
        header = _HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST_ACK, sequence, 0)
        try:
            channel.send(header + body)
            code = _answer(channel)
        except OSError as error:
            code = error.errno or errno.EIO
        if code in {errno.EBUSY, errno.EEXIST}:
            raise BackendError(
                f"NFLOG group {group} is read by another program already",
                hint="stop it for a moment, or look at its files: it gets the same packets",
            )
        if code:
            raise BackendError(
                f"cannot listen to NFLOG group {group}: {errno.errorcode.get(code, code)}",
                hint="the module nfnetlink_log may be missing",
            )


def _answer(channel: socket.socket) -> int:
    """Return the error number of the kernel's answer; packets may come before it."""
    while True:
        for kind, body in messages(datagram(channel, _BUFFER)):
            if kind == _ERROR:
                return -int(struct.unpack_from("=i", body)[0])


def _received(channel: socket.socket) -> Iterator[Logged]:
    try:
        data = datagram(channel, _BUFFER)
    except OSError as error:
        # The buffer was full and packets were lost: a sample misses some, no more.
        if error.errno == errno.ENOBUFS:
            return
        raise BackendError(f"NFLOG: {error.strerror}") from error
    now = time.time()
    for kind, body in messages(data):
        if kind == _PACKET:
            fields = dict(attributes(body[4:]))
            source = _source(fields.get(_PAYLOAD, b""))
            if source is not None:
                prefix = fields.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", errors="replace")
                yield Logged(prefix, source, now)


def _source(packet: bytes) -> IpAddress | None:
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return IPv4Address(packet[12:16])
    if version == 6 and len(packet) >= 40:
        return IPv6Address(packet[8:24])
    return None
