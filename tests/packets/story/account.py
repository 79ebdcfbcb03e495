"""SIP messages of one account: requests, credentials, and what belongs to a dialog."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from lab import sip
from packets.registrar import password
from packets.story.switchboard import REALM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packets.evidence.wire import Place

NONCE = re.compile(r'nonce="([^"]+)"')
AGENT = "Desk Phone 1.0"


class Dialog(NamedTuple):
    """Where requests go that belong to a call, and what they carry."""

    remote: str
    route: tuple[str, ...]
    call_id: str
    own: str
    other: str


class Account:
    """What a phone writes; it knows its inner port 5060 only, and a NAT shows another."""

    def __init__(self, user: str, address: str, switch: Place, transport: str = "UDP") -> None:
        self.user, self.transport = user, transport
        self.domain = sip.host_text(switch[0])
        self._here = f"{sip.host_text(address)}:5060"
        way = "" if transport == "UDP" else f";transport={transport.lower()}"
        self.contact = f"<sip:{user}@{self._here}{way}>"
        self._cseq = secrets.randbelow(1000) + 1

    def request(
        self,
        method: str,
        number: str | None = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
        call_id: str | None = None,
    ) -> bytes:
        """Return a request outside of any dialog; without a number it is about the account."""
        uri = f"sip:{self.domain}" if method == "REGISTER" else f"sip:{number}@{self.domain}"
        own = f"<sip:{self.user}@{self.domain}>"
        return self._build(
            method,
            uri,
            [
                ("From", f"{own};tag={secrets.token_hex(4)}"),
                ("To", own if number is None else f"<sip:{number}@{self.domain}>"),
                ("Call-ID", call_id or secrets.token_hex(8)),
                *headers,
            ],
        )

    def within(self, dialog: Dialog, method: str, cseq: int | None = None) -> bytes:
        headers = [("From", dialog.own), ("To", dialog.other), ("Call-ID", dialog.call_id)]
        route = [("Route", each) for each in dialog.route]
        return self._build(method, dialog.remote, [*route, *headers], cseq)

    def credentials(
        self, challenge: sip.Message, request: bytes, secret: str | None = None
    ) -> tuple[str, str]:
        """Answer a 401 or 407 without qop (RFC 2617, 3.2.2)."""
        proxy = challenge.status == 407
        offered = challenge.header("proxy-authenticate" if proxy else "www-authenticate") or ""
        found = NONCE.search(offered)
        nonce = found[1] if found else ""
        method, uri = request.decode().split(" ", 2)[:2]
        account = md5(f"{self.user}:{REALM}:{secret or password(self.user)}")
        response = md5(f"{account}:{nonce}:{md5(f'{method}:{uri}')}")
        value = (
            f'Digest username="{self.user}", realm="{REALM}", nonce="{nonce}", uri="{uri}", '
            f'response="{response}", algorithm=MD5'
        )
        return "Proxy-Authorization" if proxy else "Authorization", value

    def _build(
        self, method: str, uri: str, headers: Sequence[tuple[str, str]], cseq: int | None = None
    ) -> bytes:
        self._cseq += cseq is None
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport} {self._here};branch={branch};rport",
            "Max-Forwards: 70",
            *(f"{name}: {value}" for name, value in headers),
            f"CSeq: {cseq or self._cseq} {method}",
            f"Contact: {self.contact}",
            f"User-Agent: {AGENT}",
            "Content-Length: 0",
        ]
        return "\r\n".join([*lines, "", ""]).encode()


def all_of(message: sip.Message, name: str) -> list[str]:
    return [value for key, value in message.headers if key == name]


def uri_in(header: str) -> str:
    return header.partition("<")[2].partition(">")[0] or header.partition(";")[0]


def dialog_of(answer: sip.Message) -> Dialog:
    """Return the caller's side of a call that was answered."""
    return Dialog(
        uri_in(answer.header("contact") or ""),
        tuple(reversed(all_of(answer, "record-route"))),
        answer.header("call-id") or "",
        answer.header("from") or "",
        answer.header("to") or "",
    )


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
