"""A name server of the test's own: it answers from a dictionary, and can misbehave.

A zone maps (name, type) to the texts of records, or to one of the words in `MISBEHAVIOUR`. What
is not in it does not exist.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

Zone = dict[tuple[str, str], "Sequence[str] | str"]

# `truncated` answers over UDP with nothing but the flag, and over TCP as it should.
MISBEHAVIOUR = frozenset(
    {"hang", "servfail", "refused", "garbage", "other-name", "other-id", "truncated"}
)
_MOST_ALIASES = 40


def open_sockets(address: str = "127.0.0.1", port: int = 0) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket of one port."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(udp.getsockname())
    tcp.listen(16)
    return udp, tcp


class NameServer:
    """Serves while it is open; `asked` are the questions that came, as (name, type)."""

    def __init__(
        self, zone: Zone, sockets: tuple[socket.socket, socket.socket] | None = None
    ) -> None:
        self.zone = zone
        self.ttl = 300
        self.truncated: Mapping[tuple[str, str], Sequence[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self._udp, self._tcp = sockets or open_sockets()
        self.port: int = self._udp.getsockname()[1]
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for item in (self._udp, self._tcp, self._stop, self._stopped):
            item.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._tcp, self._stopped], [], [])
            if self._stopped in ready:
                return
            with suppress(OSError):
                if self._udp in ready:
                    data, sender = self._udp.recvfrom(65535)
                    for answer in self._answers(data, tcp=False):
                        self._udp.sendto(answer, sender)
                if self._tcp in ready:
                    self._serve_stream()

    def _serve_stream(self) -> None:
        stream, _ = self._tcp.accept()
        with stream:
            stream.settimeout(2)
            length = struct.unpack("!H", stream.recv(2))[0]
            for answer in self._answers(stream.recv(length), tcp=True):
                stream.sendall(struct.pack("!H", len(answer)) + answer)

    def _answers(self, data: bytes, *, tcp: bool) -> Iterator[bytes]:
        query = dns.message.from_wire(data)
        [question] = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        found = self.zone.get((name, kind))
        how = found if isinstance(found, str) else ""
        if how == "hang":
            return
        if how == "garbage":
            yield data[:2] + b"\x84\x00" + b"\xff" * 40
            return
        answer = dns.message.make_response(query, recursion_available=True)
        if how == "other-id":
            answer.id ^= 1
        if how in {"servfail", "refused"}:
            answer.set_rcode(dns.rcode.from_text(how))
        elif how == "truncated" and not tcp:
            answer.flags |= dns.flags.TC
        else:
            self._fill(answer, question.name, kind, name)
        if how == "other-name":
            answer.question[0].name = dns.name.from_text("other.example")
        yield answer.to_wire(max_size=65535 if tcp else 4096)

    def _fill(
        self, answer: dns.message.Message, asked: dns.name.Name, kind: str, name: str
    ) -> None:
        owner = asked
        for _ in range(_MOST_ALIASES):
            alias = self.zone.get((name, "CNAME"))
            if alias is None or isinstance(alias, str):
                break
            answer.answer.append(self._rrset(owner, "CNAME", alias))
            owner, name = dns.name.from_text(alias[0]), alias[0].rstrip(".").lower()
        texts = self.zone.get((name, kind))
        if isinstance(texts, str):
            texts = self.truncated.get((name, kind), ())
        if texts:
            answer.answer.append(self._rrset(owner, kind, texts))
        elif not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)

    def _rrset(self, owner: dns.name.Name, kind: str, texts: Sequence[str]) -> dns.rrset.RRset:
        return dns.rrset.from_text_list(owner, self.ttl, "IN", kind, list(texts))
