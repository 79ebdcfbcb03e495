"""A good phone or trunk: transactions with retransmission (RFC 3261, 17.1), digest, and calls."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.prove import digest, sip
from sipfw.prove.switch import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from sipfw.prove.switch import SipSwitch

# T1 of RFC 3261 and its doublings; a user gives up before timer F, 32 s.
_REPEAT_AFTER = (0.5, 1.0, 2.0, 2.0)
_PATIENCE = 2.0
_RTP_PACKETS = 20
_RTP_GAP = 0.01
# Of twenty packets one may be lost before anybody hears it.
_RTP_ENOUGH = 19


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Dialog:
    call_id: str
    cseq: int
    to_tag: str | None = None


class Phone:
    """One endpoint. Each deed returns None where it was done, or else why not."""

    def __init__(
        self,
        address: str,
        port: int,
        switch: tuple[str, int],
        user: str,
        *,
        media: str | None = None,
        ringing: float = 0.5,
        watched: SipSwitch,
    ) -> None:
        self._address, self._user, self._switch = address, user, switch
        self._media, self._ringing, self._watched = media or address, ringing, watched
        self._socket = _bound(address, port)
        self._port = int(self._socket.getsockname()[1])
        self._tag = secrets.token_hex(4)

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def register(self) -> str | None:
        """Log in: once without credentials, once with them."""
        return self._done("REGISTER")

    def options(self) -> str | None:
        """Ask whether the switch is there."""
        return self._done("OPTIONS")

    def subscribe(self) -> str | None:
        """Subscribe to the state of a colleague's line."""
        more = (("Event", "dialog"), ("Expires", "300"), ("Accept", "application/dialog-info+xml"))
        return self._done("SUBSCRIBE", more)

    def message(self) -> str | None:
        """Send a short text."""
        return self._done("MESSAGE", (("Content-Type", "text/plain"),), b"Are you there?")

    def keep_alive(self) -> str | None:
        """Send CRLF CRLF (RFC 5626, 3.5.1) and see that it arrives."""
        me = (self._address, self._port, "other")
        before = self._watched.came(*me)
        self._socket.sendto(b"\r\n\r\n", self._switch)
        return _until(lambda: self._watched.came(*me) > before, "the keep-alive did not arrive")

    def call(self) -> str | None:
        """Call, hear the switch's echo, hang up."""
        with _bound(self._media, 0) as rtp:
            body = sip.sdp(self._media, int(rtp.getsockname()[1]))
            answer = self._ask("INVITE", (), body)
            if answer is None or answer.status != 200:
                return _why("INVITE", answer)
            number = int((answer.header("cseq") or "1").split()[0])
            dialog = _Dialog(answer.header("call-id") or "", number, _tag(answer))
            self._send("ACK", dialog)
            heard = self._media_echo(rtp, answer)
            ended = self._ask("BYE", dialog=replace(dialog, cseq=number + 1))
        if ended is None or ended.status != 200:
            return _why("BYE", ended)
        return None if heard >= _RTP_ENOUGH else f"{heard} of {_RTP_PACKETS} RTP packets came back"

    def called(self) -> str | None:
        """Answer a call of the switch after ringing; its ACK must come."""
        call_id = self._watched.ask("INVITE", self._address, self._port)
        invite = self._await(lambda m: m.method == "INVITE" and m.header("call-id") == call_id)
        if invite is None:
            return "the switch's INVITE did not come out"
        raw = self._last
        tag = secrets.token_hex(4)
        self._reply(180, raw, tag)
        time.sleep(self._ringing)
        for wait in _REPEAT_AFTER:
            self._reply(200, raw, tag, sip.sdp(self._media))
            got = self._await(lambda m: m.method == "ACK" and m.header("call-id") == call_id, wait)
            if got is not None:
                return None
        return "no ACK for the answer of a call that the switch made"

    def probed(self) -> str | None:
        """Answer an OPTIONS of the switch."""
        call_id = self._watched.ask("OPTIONS", self._address, self._port)
        asked = self._await(lambda m: m.method == "OPTIONS" and m.header("call-id") == call_id)
        if asked is None:
            return "the switch's OPTIONS did not come out"
        self._reply(200, self._last)
        return _until(lambda: self._watched.answered(call_id), "the answer to OPTIONS was lost")

    def _done(self, method: str, headers: Headers = (), body: bytes = b"") -> str | None:
        answer = self._ask(method, headers, body)
        return None if answer is not None and answer.status == 200 else _why(method, answer)

    def _ask(
        self,
        method: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        dialog: _Dialog | None = None,
    ) -> sip.Message | None:
        """Return the final answer; a challenge is met once."""
        dialog = dialog or _Dialog(f"{secrets.token_hex(8)}@{self._user}", 1)
        answer = self._transact(method, dialog, headers, body)
        if answer is None or answer.status not in {401, 407}:
            return answer
        if method == "INVITE":
            self._send("ACK", replace(dialog, to_tag=_tag(answer)))
        challenge = answer.header("www-authenticate") or answer.header("proxy-authenticate") or ""
        again = (*headers, self._credentials(method, challenge))
        return self._transact(method, replace(dialog, cseq=dialog.cseq + 1), again, body)

    def _credentials(self, method: str, challenge: str) -> tuple[str, str]:
        uri = f"sip:{sip.host_text(self._switch[0])}"
        return digest.authorization(challenge, method, uri, user=self._user, password=PASSWORD)

    def _transact(
        self, method: str, dialog: _Dialog, headers: Headers, body: bytes
    ) -> sip.Message | None:
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        cseq = f"{dialog.cseq} {method}"
        for wait in _REPEAT_AFTER:
            self._send(method, dialog, headers, body, branch=branch)
            found = self._await(lambda m: _answers(m, dialog.call_id, cseq), wait)
            if found is not None:
                return found
        return None

    def _send(
        self,
        method: str,
        dialog: _Dialog,
        headers: Headers = (),
        body: bytes = b"",
        *,
        branch: str | None = None,
    ) -> None:
        message = sip.request(
            method,
            source=self._address,
            destination=self._switch[0],
            user=self._user,
            source_port=self._port,
            user_agent="Yealink SIP-T46U 108.86.0.20",
            call_id=dialog.call_id,
            cseq=dialog.cseq,
            branch=branch,
            from_tag=self._tag,
            to_tag=dialog.to_tag,
            extra_headers=headers,
            body=body,
        )
        self._socket.sendto(message, self._switch)

    def _reply(
        self, status: int, request: bytes, tag: str | None = None, body: bytes = b""
    ) -> None:
        self._socket.sendto(sip.response(status, request, to_tag=tag, body=body), self._switch)

    def _await(
        self, wanted: Callable[[sip.Message], bool], seconds: float = _PATIENCE
    ) -> sip.Message | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65535)
            except OSError:
                continue
            found = sip.parse(data)
            if found is not None and wanted(found):
                self._last = data
                return found
        return None

    def _media_echo(self, rtp: socket.socket, answer: sip.Message) -> int:
        """Send RTP to where the answer says and count what comes back."""
        port = answer.body.partition(b"m=audio ")[2].partition(b" ")[0]
        target = (self._switch[0], int(port))
        rtp.settimeout(0.5)
        heard: set[bytes] = set()
        for number in range(_RTP_PACKETS):
            rtp.sendto(bytes((0x80, 0)) + number.to_bytes(2) + b"\1" * 168, target)
            time.sleep(_RTP_GAP)
        deadline = time.monotonic() + _PATIENCE
        while len(heard) < _RTP_PACKETS and time.monotonic() < deadline:
            try:
                data = rtp.recv(2048)
            except OSError:
                continue
            if data[4:5] == b"\1":
                heard.add(data[2:4])
        return len(heard)


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    return opened


def _answers(message: sip.Message, call_id: str, cseq: str) -> bool:
    return (
        (message.status or 0) >= 200
        and message.header("call-id") == call_id
        and message.header("cseq") == cseq
    )


def _tag(message: sip.Message) -> str | None:
    return (message.header("to") or "").partition(";tag=")[2] or None


def _why(method: str, answer: sip.Message | None) -> str:
    return f"no answer to {method}" if answer is None else f"{answer.status} to {method}"


def _until(true: Callable[[], bool], otherwise: str) -> str | None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if true():
            return None
        time.sleep(0.02)
    return otherwise
