"""Netlink for nf_tables: attributes, and batches that the kernel takes whole or not at all.

Knows bytes, sequence numbers and answers; what a request means is its maker's business. Sockets
belong to the network namespace of the calling thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NFPROTO = {"inet": 1, "ip": 2, "ip6": 10}
SUBSYS_NFTABLES = 10
SUBSYS_COMPAT = 11

CREATE = 0x400
APPEND = 0x800
DUMP = 0x300

_REQUEST = 0x1
_ACK = 0x4
_DUMP_INTERRUPTED = 0x10
_CAPPED = 0x100
_ACK_TLVS = 0x200

_ERROR = 2
_DONE = 3
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11

_SOL_NETLINK = 270
_CAP_ACK = 10
_EXT_ACK = 11
_NETLINK_NETFILTER = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")
_NESTED = 0x8000
_KIND_MASK = 0x3FFF

# What one waiting acknowledgement costs in the receive buffer (sk_buff and data), rounded up.
_ANSWER_COST = 2048
_SMALLEST_BUFFER = 1 << 18
_ATTEMPTS = 6
# The kernel answers inside send(); the deadline is for a kernel that does not answer at all.
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class NetlinkRequest:
    """One message: `kind` is subsystem << 8 | message, `what` names it in an error."""

    kind: int
    body: bytes
    what: str
    flags: int = 0


class NetlinkError(BackendError):
    """The kernel refused a request; a refused batch has changed nothing.

    `request` is the refused request's `what`; `attribute` is the outermost attribute that the
    kernel blames, None when it blames none.
    """

    def __init__(
        self, what: str, code: int, kernel_text: str = "", attribute: int | None = None
    ) -> None:
        self.request = what
        self.errno = code
        self.attribute = attribute
        name = errno.errorcode.get(code, str(code))
        meaning = f"{os.strerror(code)} ({name})"
        said = f"{kernel_text}: {meaning}" if kernel_text else meaning
        super().__init__(f"nf_tables: {what}: {said}")


class _AnswersLostError(Exception):
    """The receive buffer was too small: what the kernel decided is not known."""


@dataclass(frozen=True, slots=True)
class _Answer:
    sequence: int
    code: int
    text: str
    offset: int | None


def attribute(kind: int, payload: bytes = b"") -> bytes:
    """Return one attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def name_attribute(kind: int, name: str) -> bytes:
    """Return a string attribute; nf_tables wants the NUL."""
    return attribute(kind, name.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and payload of the attributes in `data`."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & _KIND_MASK, data[at + 4 : at + length]
        at += length + (-length % 4)


def datagram(channel: socket.socket, room: int = 1 << 17) -> bytes:
    """Wait for one datagram of the kernel's; of what any other process writes nothing is left."""
    data, (sender, _) = channel.recvfrom(room)
    # Any local process may write to this socket; only the kernel has id 0.
    return data if sender == 0 else b""


def decode(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, sequence and body of the messages in one datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += max(length + (-length % 4), _HEADER.size)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of the messages in one datagram."""
    for kind, _, _, body in decode(data):
        yield kind, body


def send_batch(family: str, requests: Sequence[NetlinkRequest]) -> None:
    """Have the kernel do all requests or none.

    Repeats the batch when answers were lost, so doing it twice must be the same as doing it once.
    """
    data = encode_batch(family, requests)
    room = max(_SMALLEST_BUFFER, len(requests) * _ANSWER_COST)
    for attempt in range(_ATTEMPTS):
        with _open(len(data), room << attempt) as channel, contextlib.suppress(_AnswersLostError):
            _send(channel, data)
            _check_answers(channel, requests)
            return
    raise BackendError(
        f"nf_tables: {len(requests)} requests: answers lost, it is not known what the kernel did",
        hint="apply again",
    )


def ask(family: str, request: NetlinkRequest) -> list[bytes]:
    """Return the attributes of every message that answers one request outside a batch."""
    for attempt in range(_ATTEMPTS):
        with _open(0, _SMALLEST_BUFFER << attempt) as channel:
            _send(channel, encode_request(family, request, sequence=1))
            with contextlib.suppress(_AnswersLostError):
                return _replies(channel, request)
    raise BackendError(f"nf_tables: {request.what}: the ruleset changes faster than it can be read")


def encode_request(family: str, request: NetlinkRequest, sequence: int) -> bytes:
    """Return one message that asks for an acknowledgement."""
    flags = _REQUEST | _ACK | request.flags
    return _message(request.kind, flags, sequence, NFPROTO[family], 0, request.body)


def encode_batch(family: str, requests: Sequence[NetlinkRequest]) -> bytes:
    """Return the requests between the messages that begin and end a transaction."""
    parts = [_message(_BATCH_BEGIN, _REQUEST, 0, 0, SUBSYS_NFTABLES, b"")]
    parts += [encode_request(family, each, number) for number, each in enumerate(requests, start=1)]
    parts.append(_message(_BATCH_END, _REQUEST, len(requests) + 1, 0, SUBSYS_NFTABLES, b""))
    return b"".join(parts)


def _message(  # noqa: PLR0917 - the fields of the two headers
    kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes
) -> bytes:
    # struct nfgenmsg: only res_id is big-endian.
    payload = struct.pack("=BB", family, 0) + struct.pack("!H", resource) + body
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def _open(send_room: int, receive_room: int) -> socket.socket:
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError as error:
        raise NetlinkError("open a netlink socket", error.errno or errno.EIO) from error
    channel.settimeout(_TIMEOUT)
    channel.bind((0, 0))
    # A batch is one datagram, and the kernel refuses one that is larger than the send buffer.
    _grow(channel, _SO_SNDBUFFORCE, socket.SO_SNDBUF, send_room + 4096)
    _grow(channel, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_room)
    for option in (_EXT_ACK, _CAP_ACK):
        # Linux 4.3 and 4.12 brought them; without them answers are longer and say less.
        with contextlib.suppress(OSError):
            channel.setsockopt(_SOL_NETLINK, option, 1)
    return channel


def _grow(channel: socket.socket, force: int, plain: int, size: int) -> None:
    try:
        channel.setsockopt(socket.SOL_SOCKET, force, min(size, 1 << 30))
    except PermissionError:
        # Without CAP_NET_ADMIN; the kernel cuts this one down to net.core.{w,r}mem_max.
        channel.setsockopt(socket.SOL_SOCKET, plain, min(size, 1 << 30))


def _send(channel: socket.socket, data: bytes) -> None:
    # An interrupted system call is repeated by Python itself (PEP 475), here and in recv.
    try:
        channel.send(data)
    except OSError as error:
        what = f"send {len(data)} bytes"
        raise NetlinkError(what, error.errno or errno.EIO) from error


def _messages(channel: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, sequence and payload of what the kernel says."""
    while True:
        try:
            data = datagram(channel)
        except TimeoutError as error:
            raise BackendError(
                f"nf_tables: no answer from the kernel within {_TIMEOUT:g} s"
            ) from error
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _AnswersLostError from error
            raise NetlinkError("receive", error.errno or errno.EIO) from error
        yield from decode(data)


def _check_answers(channel: socket.socket, requests: Sequence[NetlinkRequest]) -> None:
    """Read one answer to each request, or one to the batch; raise the first refusal."""
    refusals: list[_Answer] = []
    missing = set(range(1, len(requests) + 1))
    for kind, flags, sequence, payload in _messages(channel):
        if kind != _ERROR:
            continue
        answer = _answer(sequence, flags, payload)
        if answer.code and sequence not in missing:
            # To the batch as a whole: no permission, no nf_tables, no memory, a failed commit.
            raise NetlinkError(f"batch of {len(requests)} requests", answer.code, answer.text)
        if answer.code:
            refusals.append(answer)
        missing.discard(sequence)
        if not missing:
            break
    if refusals:
        first = min(refusals, key=lambda each: each.sequence)
        raise _refusal(requests[first.sequence - 1], first)


def _replies(channel: socket.socket, request: NetlinkRequest) -> list[bytes]:
    replies: list[bytes] = []
    for kind, flags, sequence, payload in _messages(channel):
        if flags & _DUMP_INTERRUPTED:
            raise _AnswersLostError
        if kind == _DONE:
            break
        if kind == _ERROR:
            answer = _answer(sequence, flags, payload)
            if answer.code:
                raise _refusal(request, answer)
            break
        replies.append(payload[4:])
    return replies


def _refusal(request: NetlinkRequest, answer: _Answer) -> NetlinkError:
    blamed = None if answer.offset is None else _attribute_at(request.body, answer.offset)
    return NetlinkError(request.what, answer.code, answer.text, blamed)


def _answer(sequence: int, flags: int, payload: bytes) -> _Answer:
    code = -struct.unpack_from("=i", payload)[0]
    text, offset = "", None
    if flags & _ACK_TLVS:
        quoted = _HEADER.size if flags & _CAPPED else struct.unpack_from("=I", payload, 4)[0]
        for kind, value in attributes(payload[4 + quoted + (-quoted % 4) :]):
            if kind == 1:
                text = value.rstrip(b"\0").decode(errors="replace")
            elif kind == 2:
                offset = struct.unpack("=I", value)[0]
    return _Answer(sequence, code, text, offset)


def _attribute_at(body: bytes, offset: int) -> int | None:
    """Return the kind of the attribute of `body` that covers this offset of its message."""
    at = _HEADER.size + 4
    for kind, payload in attributes(body):
        end = at + 4 + len(payload) + (-len(payload) % 4)
        if at <= offset < end:
            return kind
        at = end
    return None
