"""A small SIP switch: registrar with digest, calls with media, its own OPTIONS and calls.

It answers as a well-known switch does and counts what reaches it. No library is used: pjsua2 and
sipsimple are compiled and hide the wire, aiosip is given up; a switch that answers on the wire in
the codes of another one is these few lines.
"""

from __future__ import annotations

import heapq
import re
import secrets
import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from typing import TYPE_CHECKING

from sipfw.prove import digest, sip

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sipfw.prove.cast import Network

PASSWORD = "b7-Quite-Right"  # noqa: S105 - of users that are nowhere else
USERS = tuple(str(number) for number in range(1000, 1100))
_EXPIRES = 300
_RECEIVE_BUFFER = 1 << 24
_SO_RCVBUFFORCE = 33
_RINGS = 0.1
_RTP = bytes((0x80, 0)) + b"\0" * 170


@dataclass(frozen=True, slots=True)
class Preset:
    """How one kind of switch answers; from its source, or what installations send."""

    server: str
    challenge: int
    wrong: int
    unknown: int


PRESETS = {
    # res_pjsip challenges again, whoever it is: nobody learns which users there are.
    "asterisk": Preset("Asterisk PBX 20.5.0", 401, 401, 401),
    # sofia_reg.c: 403 for a wrong password, and for a user that is not there.
    "freeswitch": Preset("FreeSWITCH-mod_sofia/1.10.11", 401, 403, 403),
    # kamailio.cfg as shipped: auth_challenge() after each failure.
    "kamailio": Preset("kamailio (5.7.4 (x86_64/linux))", 401, 401, 401),
    "vos3000": Preset("VOS3000 V2.1.8.05", 401, 403, 403),
}
_LIKE = {"freepbx": "asterisk", "opensips": "kamailio"}


def preset_for(switch: str | None) -> str:
    """Return the preset for a policy's `switch`; Asterisk for one that has none of its own."""
    name = _LIKE.get(switch or "", switch or "")
    return name if name in PRESETS else "asterisk"


class SipSwitch:
    """Serves in a thread of its own; everything else may be called from others."""

    def __init__(
        self,
        addresses: Mapping[int, str],
        *,
        ports: Sequence[int],
        media: int,
        preset: str,
        trusted: Collection[str],
    ) -> None:
        self._addresses = addresses
        self._preset = PRESETS[preset]
        self._trusted = frozenset(trusted)
        self._media = media
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._lock = threading.Lock()
        self._arrived: list[tuple[float, str, int, str]] = []
        self._refused: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._nonces: set[str] = set()
        self._own: dict[int, socket.socket] = {}
        for port in ports:
            for version in (4, 6):
                opened = self._open(version, port, self._on_signalling)
                self._own.setdefault(version, opened)
        self._rtp = {version: self._open(version, media, self._on_media) for version in (4, 6)}

    def start(self) -> None:
        """Serve until the process ends."""
        threading.Thread(target=self._serve, daemon=True).start()

    def arrivals(self, networks: Sequence[Network]) -> list[float]:
        """Return when packets of these networks came to the SIP ports."""
        with self._lock:
            found = list(self._arrived)
        near = {address: _inside(address, networks) for address in {each[1] for each in found}}
        return [moment for moment, address, _, _ in found if near[address]]

    def came(self, address: str, port: int, kind: str) -> int:
        """Count what came from one endpoint; `kind` is a method, or `other`."""
        with self._lock:
            return sum(each[1:] == (address, port, kind) for each in self._arrived)

    def refused(self, networks: Sequence[Network]) -> int:
        """Count the logins of these networks that were refused."""
        with self._lock:
            found = dict(self._refused)
        return sum(many for address, many in found.items() if _inside(address, networks))

    def forget(self) -> None:
        """Drop what was counted so far."""
        with self._lock:
            self._arrived.clear()
            self._refused.clear()

    def answered(self, call_id: str) -> bool:
        """Tell whether a request of the switch itself had its final answer."""
        return call_id in self._answered

    def ask(self, method: str, address: str, port: int) -> str:
        """Send a request of the switch's own and return its Call-ID."""
        version = 6 if ":" in address else 4
        call_id = f"{secrets.token_hex(8)}@switch"
        opened, here = self._own[version], self._addresses[version]
        body = sip.sdp(here, self._media) if method == "INVITE" else b""
        message = sip.request(
            method,
            source=here,
            destination=address,
            user="100",
            caller="switch",
            source_port=opened.getsockname()[1],
            user_agent=self._preset.server,
            call_id=call_id,
            body=body,
        )
        opened.sendto(message, (address, port))
        return call_id

    def _open(
        self, version: int, port: int, handle: Callable[[socket.socket], None]
    ) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM)
        if version == 6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        opened.settimeout(0)
        opened.bind(("", port))
        self._selector.register(opened, selectors.EVENT_READ, handle)
        return opened

    def _serve(self) -> None:
        while True:
            patience = max(0.0, self._later[0][0] - time.monotonic()) if self._later else 1.0
            for key, _ in self._selector.select(patience):
                key.data(key.fileobj)
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()

    def _on_media(self, opened: socket.socket) -> None:
        try:
            data, peer = opened.recvfrom(65535)
            opened.sendto(data, peer)
        except OSError:
            return

    def _on_signalling(self, opened: socket.socket) -> None:
        for _ in range(64):
            try:
                data, peer = opened.recvfrom(65535)
            except OSError:
                return
            with self._lock:
                self._arrived.append((time.monotonic(), peer[0], peer[1], sip.kind(data)))
            message = sip.parse(data)
            try:
                if message is not None and message.is_request:
                    self._on_request(opened, data, message, peer)
                elif message is not None:
                    self._on_response(opened, message, peer)
            except OSError:
                continue

    def _on_response(self, opened: socket.socket, message: sip.Message, peer: Peer) -> None:
        status, cseq = message.status or 0, message.header("cseq") or ""
        if status < 200:
            return
        self._answered.add(message.header("call-id") or "")
        if cseq.endswith("INVITE"):
            opened.sendto(_ack(message), peer)

    def _on_request(
        self, opened: socket.socket, data: bytes, message: sip.Message, peer: Peer
    ) -> None:
        method = message.method
        if method == "ACK":
            return
        if method in {"OPTIONS", "BYE", "CANCEL"} or (
            peer[0] in self._trusted and method != "REGISTER"
        ):
            status = 200
        else:
            status = self._judged(message, peer[0])
        if status != 200:
            challenge = () if status == 403 else (self._challenge(),)
            opened.sendto(self._response(status, data, *challenge), peer)
        elif method == "INVITE":
            self._ring(opened, data, peer)
        else:
            more = (("Expires", str(_EXPIRES)),) if method in {"REGISTER", "SUBSCRIBE"} else ()
            opened.sendto(self._response(200, data, *more), peer)

    def _judged(self, message: sip.Message, source: str) -> int:
        given = message.header("authorization") or message.header("proxy-authorization")
        if given is None:
            return self._preset.challenge
        fields = digest.fields(given)
        user, nonce = fields.get("username", ""), fields.get("nonce", "")
        right = digest.response(fields, PASSWORD, message.method)
        if user in USERS and nonce in self._nonces and fields.get("response") == right:
            return 200
        with self._lock:
            self._refused[source] += 1
        return self._preset.wrong if user in USERS else self._preset.unknown

    def _challenge(self) -> tuple[str, str]:
        nonce = secrets.token_hex(8)
        self._nonces.add(nonce)
        return "WWW-Authenticate", f'Digest realm="switch", nonce="{nonce}", algorithm=MD5'

    def _response(self, status: int, data: bytes, *more: tuple[str, str]) -> bytes:
        return sip.response(status, data, extra_headers=(("Server", self._preset.server), *more))

    def _ring(self, opened: socket.socket, data: bytes, peer: Peer) -> None:
        here, tag = self._addresses[6 if ":" in peer[0] else 4], secrets.token_hex(4)
        opened.sendto(sip.response(100, data), peer)
        opened.sendto(sip.response(180, data, to_tag=tag), peer)
        body = sip.sdp(here, self._media)
        contact = (("Contact", f"<sip:{sip.host_text(here)}>"),)
        answer = sip.response(200, data, to_tag=tag, extra_headers=contact, body=body)
        # The switch speaks first: it is what opens the way back where media are expected only.
        target = _media_target(data)
        if target is not None:
            self._rtp[6 if ":" in target[0] else 4].sendto(_RTP, target)
        self._do_later(_RINGS, lambda: _sent(opened, answer, peer))

    def _do_later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), call))


Peer = tuple[str, int]


def _inside(address: str, networks: Sequence[Network]) -> bool:
    return any(ip_address(address) in net for net in networks)


def _sent(opened: socket.socket, data: bytes, peer: Peer) -> None:
    opened.sendto(data, peer)


def _media_target(invite: bytes) -> Peer | None:
    address = re.search(rb"\nc=IN IP[46] ([0-9a-fA-F.:]+)", invite)
    port = re.search(rb"\nm=audio (\d{1,5}) ", invite)
    if address is None or port is None or not 0 < int(port[1]) < 65536:
        return None
    return address[1].decode(), int(port[1])


def _ack(answer: sip.Message) -> bytes:
    """Return the ACK for a final answer to an INVITE of the switch."""
    copied = {name: answer.header(name) or "" for name in ("from", "to", "call-id")}
    number = (answer.header("cseq") or "1").split()[0]
    lines = (
        "ACK sip:100@stage SIP/2.0",
        f"Via: SIP/2.0/UDP switch;branch=z9hG4bK{secrets.token_hex(8)};rport",
        "Max-Forwards: 70",
        f"From: {copied['from']}",
        f"To: {copied['to']}",
        f"Call-ID: {copied['call-id']}",
        f"CSeq: {number} ACK",
        "Content-Length: 0",
    )
    return "\r\n".join((*lines, "", "")).encode()
