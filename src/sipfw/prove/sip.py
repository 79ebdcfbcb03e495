"""Build and read SIP messages; knows the text format and nothing about sockets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

REASONS = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    503: "Service Unavailable",
}
COMPACT_NAMES = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
}
# Inside the media range that most switches ship with.
MEDIA_PORT = 12000
COPIED_HEADERS = ("via", "from", "to", "call-id", "cseq")


@dataclass(frozen=True, slots=True)
class Message:
    """A SIP message taken apart; header names are in lower case and in wire order."""

    start_line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def method(self) -> str:
        """Return the method of a request, or the version of a response."""
        return self.start_line.split(" ", 1)[0]

    @property
    def uri_user(self) -> str:
        """Return the user of the request's URI."""
        uri = self.start_line.split(" ")[1] if " " in self.start_line else ""
        return uri.removeprefix("sip:").partition("@")[0]

    @property
    def is_request(self) -> bool:
        """Tell a request from a response."""
        return self.start_line.endswith(" SIP/2.0") and self.method.isalpha()

    @property
    def status(self) -> int | None:
        """Return the status of a response, None for a request."""
        words = self.start_line.split(" ")
        if words[0] != "SIP/2.0" or len(words) < 2 or not words[1].isdigit():
            return None
        return int(words[1])

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)


def parse(data: bytes) -> Message | None:
    """Return the message in `data`, or None when it is not SIP."""
    head, _, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    start_line, *lines = head.decode("utf-8", "replace").split("\r\n")
    if "SIP/2.0" not in start_line:
        return None
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            headers.append((COMPACT_NAMES.get(key, key), value.strip()))
    return Message(start_line, tuple(headers), body)


def kind(data: bytes) -> str:
    """Return the method of a request, `SIP/2.0` for a response and `other` for the rest."""
    first = data[:32].split(b" ", 1)[0]
    if first == b"SIP/2.0":
        return "SIP/2.0"
    return first.decode() if first.isalpha() and first.isupper() else "other"


def host_text(address: str) -> str:
    """Return `address` as a URI writes it: IPv6 in brackets, a name unchanged."""
    try:
        return f"[{address}]" if ip_address(address).version == 6 else address
    except ValueError:
        return address


def sdp(address: str, port: int = MEDIA_PORT) -> bytes:
    """Return the smallest session description that offers one G.711 stream."""
    family = "IP6" if ":" in address else "IP4"
    lines = (
        "v=0",
        f"o=lab 1 1 IN {family} {address}",
        "s=-",
        f"c=IN {family} {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0",
        "a=rtpmap:0 PCMU/8000",
    )
    return "\r\n".join((*lines, "")).encode()


def request(
    method: str,
    *,
    source: str,
    destination: str,
    user_agent: str | None = None,
    user: str = "1000",
    caller: str | None = None,
    source_port: int = 5060,
    transport: str = "UDP",
    call_id: str | None = None,
    cseq: int = 1,
    branch: str | None = None,
    from_tag: str | None = None,
    to_tag: str | None = None,
    extra_headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """Return a complete request; identifiers that are not given are fresh and of fixed length."""
    here, there = host_text(source), host_text(destination)
    caller = caller or user
    branch = branch or f"z9hG4bK{secrets.token_hex(8)}"
    target = f"sip:{there}" if method == "REGISTER" else f"sip:{user}@{there}"
    to_end = f";tag={to_tag}" if to_tag else ""
    headers = [
        ("Via", f"SIP/2.0/{transport} {here}:{source_port};branch={branch};rport"),
        ("Max-Forwards", "70"),
        ("From", f"<sip:{caller}@{here}>;tag={from_tag or secrets.token_hex(4)}"),
        ("To", f"<sip:{user}@{there}>{to_end}"),
        ("Call-ID", call_id or f"{secrets.token_hex(8)}@{here}"),
        ("CSeq", f"{cseq} {method}"),
        ("Contact", f"<sip:{caller}@{here}:{source_port}>"),
    ]
    if user_agent is not None:
        headers.append(("User-Agent", user_agent))
    headers.extend(extra_headers)
    return _assemble(f"{method} {target} SIP/2.0", headers, body)


def response(
    status: int,
    answered: bytes,
    *,
    reason: str | None = None,
    to_tag: str | None = None,
    extra_headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """Return the answer to the request `answered`, with every header that must be copied."""
    message = parse(answered)
    if message is None:
        msg = "only a SIP request can be answered"
        raise ValueError(msg)
    headers = []
    for name in COPIED_HEADERS:
        for value in (value for key, value in message.headers if key == name):
            needs_tag = name == "to" and status > 100 and ";tag=" not in value
            tail = f";tag={to_tag or secrets.token_hex(4)}" if needs_tag else ""
            headers.append((_printed(name), value + tail))
    headers.extend(extra_headers)
    return _assemble(f"SIP/2.0 {status} {reason or REASONS.get(status, 'Unknown')}", headers, body)


def _printed(name: str) -> str:
    return {"call-id": "Call-ID", "cseq": "CSeq"}.get(name, name.title())


def _assemble(start_line: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    names = {name.lower() for name, _ in headers}
    if body and "content-type" not in names:
        headers.append(("Content-Type", "application/sdp"))
    headers.append(("Content-Length", str(len(body))))
    lines = [start_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body
