"""What switches answer, as functions from a request to responses."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packets.evidence.switch import Answer, Answerer

RIGHT = "right-password"
STALE = "stale-nonce"
CREDENTIALS = re.compile(rb"\r\n(?:proxy-)?authorization:", re.IGNORECASE)
CHALLENGES = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}
# What a PBX asks no password for.
OPEN = {"OPTIONS": 200, "NOTIFY": 200, "BYE": 200, "CANCEL": 200, "INFO": 200}
COPIED = re.compile(rb"(?:via|from|to|call-id|cseq)[ \t]*:", re.IGNORECASE)


def silent(_request: bytes) -> list[Answer]:
    return []


def respond(status: int, request: bytes, *, stale: bool = False) -> bytes:
    headers = []
    if status in CHALLENGES:
        end = ", stale=true" if stale else ""
        value = f'Digest realm="lab.example", nonce="{secrets.token_hex(8)}", algorithm=MD5{end}'
        headers.append((CHALLENGES[status], value))
    return sip.response(status, request, to_tag="lab", extra_headers=headers)


def digest(
    *,
    wrong: int = 401,
    missing: Sequence[str] = (),
    open_methods: Mapping[str, int] = OPEN,
    success: Mapping[str, Sequence[tuple[float, int]]] | None = None,
) -> Answerer:
    """Answer like a switch that wants a password for all but some methods.

    `missing` are users that it does not have, `success` what it says to a good request.
    """
    good = {"INVITE": [(0.0, 100), (0.0, 180), (0.0, 200)], **(success or {})}

    def answer(request: bytes) -> list[Answer]:
        message = sip.parse(request)
        if message is None or not message.is_request or message.method == "ACK":
            return []
        credentials = CREDENTIALS.search(request)
        if message.method in open_methods:
            return [(0.0, respond(open_methods[message.method], request))]
        if credentials is None:
            return [(0.0, respond(407 if message.method == "INVITE" else 401, request))]
        if STALE.encode() in request:
            return [(0.0, respond(401, request, stale=True))]
        if RIGHT.encode() not in request:
            return [(0.0, respond(wrong, request))]
        if message.uri_user in missing:
            return [(0.0, respond(404, request))]
        statuses = good.get(message.method, [(0.0, 200)])
        return [(delay, respond(status, request)) for delay, status in statuses]

    return answer


def by_method(statuses: Mapping[str, int | Sequence[tuple[float, int]]]) -> Answerer:
    """Answer each method with a status, or with several in so many seconds; `*` is any other."""

    def answer(request: bytes) -> list[Answer]:
        message = sip.parse(request)
        if message is None or not message.is_request or message.method == "ACK":
            return []
        wanted = statuses.get(message.method, statuses.get("*", ()))
        each = [(0.0, wanted)] if isinstance(wanted, int) else wanted
        return [(delay, respond(status, request)) for delay, status in each]

    return answer


def echoing(request: bytes) -> list[Answer]:
    """Refuse a REGISTER, say yes to all else, and copy the headers octet by octet."""
    request = request.lstrip(b"\r\n")
    method = request.split(b" ", 1)[0]
    if not method.isalpha() or method == b"ACK":
        return []
    head = request.partition(b"\r\n\r\n")[0]
    # A folded line belongs to the header above it.
    headers = re.split(rb"\r\n(?![ \t])", head)[1:]
    copied = [each for each in headers if COPIED.match(each)]
    status = b"401 Unauthorized" if method == b"REGISTER" else b"200 OK"
    lines = [b"SIP/2.0 " + status, *copied, b"Content-Length: 0", b"", b""]
    return [(0.0, b"\r\n".join(lines))]
