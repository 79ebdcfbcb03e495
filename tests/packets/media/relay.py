"""A media relay as rtpengine is one: told by kamailio, it learns from packets whom to send to.

    relay.py NEAR FAR FIRST     speak to callers from NEAR, to callees from FAR

Speaks rtpengine's ng protocol (a cookie and a bencoded dictionary, over UDP port 22222 of loopback)
as far as one call needs it. Each call has a port for either end; what comes in at one leaves from
the other to the address of the SDP, and from then on to whoever has sent last: that is what makes a
caller behind NAT heard, and what rtpbleed lives on. Ends with its input, and then prints as JSON
how many packets came from which address.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

CONTROL = ("127.0.0.1", 22222)
FAMILY = re.compile(rb"^(c=IN IP\d )\S+", re.MULTILINE)
AUDIO = re.compile(rb"^(m=audio )(\d+)", re.MULTILINE)


def decoded(data: bytes, at: int = 0) -> tuple[object, int]:
    """Read one bencoded value; return it with the place behind it."""
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in b"ld":
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = decoded(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2], strict=True))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end], end


def encoded(words: dict[bytes, bytes]) -> bytes:
    """Write a dictionary of texts."""
    parts = [b"%d:%b" % (len(text), text) for pair in sorted(words.items()) for text in pair]
    return b"d" + b"".join(parts) + b"e"


@dataclass
class End:
    """One end of a call: our socket, and to whom we send from it."""

    socket: socket.socket
    to: tuple[str, int] | None = None
    other: End | None = field(default=None, repr=False)


class Relay:
    """All calls."""

    def __init__(self, near: str, far: str, first: int) -> None:
        self.addresses = (near, far)
        self.ports = count(first, 2)
        self.ends: dict[int, End] = {}
        self.calls: dict[bytes, tuple[End, End]] = {}
        self.came: Counter[str] = Counter()

    def told(self, words: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Do as kamailio says."""
        command = words[b"command"]
        if command == b"ping":
            return {b"result": b"pong"}
        if command in {b"offer", b"answer"}:
            near, far = self._call(words[b"call-id"])
            # The one who wrote the SDP is spoken to, the other end's address is put in it.
            writer, reader = (near, far) if command == b"offer" else (far, near)
            writer.to = writer.to or _place(words[b"sdp"])
            address, port = reader.socket.getsockname()[:2]
            sdp = FAMILY.sub(rb"\g<1>" + address.encode(), words[b"sdp"])
            sdp = AUDIO.sub(rb"\g<1>%d" % port, sdp)
            return {b"result": b"ok", b"sdp": sdp}
        return {b"result": b"ok"}

    def _call(self, name: bytes) -> tuple[End, End]:
        if name not in self.calls:
            near, far = (End(_bound(address, next(self.ports))) for address in self.addresses)
            near.other, far.other = far, near
            self.calls[name] = near, far
            self.ends |= {end.socket.fileno(): end for end in (near, far)}
        return self.calls[name]

    def heard(self, end: End) -> None:
        """Pass a packet on and learn from it."""
        data, peer = end.socket.recvfrom(2048)
        self.came[peer[0]] += 1
        end.to = peer[:2]
        if end.other is not None and end.other.to is not None:
            end.other.socket.sendto(data, end.other.to)


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def _place(sdp: bytes) -> tuple[str, int] | None:
    address, port = FAMILY.search(sdp), AUDIO.search(sdp)
    if address is None or port is None:
        return None
    return address[0].split()[-1].decode(), int(port[2])


def main(near: str, far: str, first: str) -> None:
    """Work until the input ends."""
    relay = Relay(near, far, int(first))
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control.bind(CONTROL)
    print("ready", flush=True)  # noqa: T201
    while True:
        sockets = [sys.stdin, control, *(end.socket for end in relay.ends.values())]
        for ready in select.select(sockets, [], [])[0]:
            if ready is sys.stdin:
                print(json.dumps(relay.came), flush=True)  # noqa: T201
                return
            if ready is control:
                data, peer = control.recvfrom(65536)
                cookie, _, text = data.partition(b" ")
                words = decoded(text)[0]
                if isinstance(words, dict):
                    control.sendto(cookie + b" " + encoded(relay.told(words)), peer)
            else:
                relay.heard(relay.ends[ready.fileno()])


if __name__ == "__main__":
    main(*sys.argv[1:])
