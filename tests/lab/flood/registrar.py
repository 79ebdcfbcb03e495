"""A registrar that outruns a flood: it knows every account, keeps nothing, and counts.

A program of its own. It prints `ready`, and at SIGTERM one line of JSON: what reached it from
people whom the command line names and, by hundredths of a second, from everybody else.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from lab.flood.promptness import be_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT = 5060
REALM = "sip.example"
NONCE = "5f1d7a84c3e09b62"
# Hundredths of a second, on the clock that all processes of a host share (CLOCK_MONOTONIC).
TICKS = 100

_RECEIVE_BUFFER = 16 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_COPIED = re.compile(rb"\r\n((?:Via|From|To|Call-ID|CSeq): [^\r]*)")
_DIGEST = re.compile(rb'\r\n(?:Proxy-)?Authorization: Digest username="([^"]*)".*?uri="([^"]*)"')
_RESPONSE = re.compile(rb'response="([0-9a-f]{32})"')
_CHALLENGES = {b"REGISTER": (b"401 Unauthorized", b"WWW"), b"INVITE": (b"407 Proxy", b"Proxy")}
_OPEN = (b"OPTIONS", b"BYE", b"CANCEL")


def response_to(nonce: str, user: str, method: str, uri: str) -> str:
    """Return the digest of an account, whose password follows from its name (RFC 2617, 3.2.2).

    Without `qop`, which the challenge does not offer.
    """
    account = _md5(f"{user}:{REALM}:password-of-{user}")
    return _md5(f"{account}:{nonce}:{_md5(f'{method}:{uri}')}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class Registrar:
    """Answers requests; `carriers` need no password to call."""

    def __init__(self, known: Sequence[str], carriers: Sequence[str]) -> None:
        self._known = [ip_network(each) for each in known]
        self._carriers = frozenset(carriers)
        self._places: dict[str, bool] = {}
        self.strangers: Counter[int] = Counter()
        self.answers: Counter[str] = Counter()

    def answer(self, request: bytes, address: str) -> bytes | None:
        """Return the response, None where there is none."""
        method = request[:16].split(b" ", 1)[0]
        if self._of_people(address):
            self.answers[f"{method.decode('latin-1')} {address}"] += 1
        else:
            self.strangers[int(time.monotonic() * TICKS)] += 1
        if method == b"ACK":
            return None
        copied = _COPIED.findall(request)
        if self._welcome(method, request, address):
            return _message(b"200 OK", copied)
        status, who = _CHALLENGES.get(method, _CHALLENGES[b"REGISTER"])
        challenge = b'%s-Authenticate: Digest realm="%s", nonce="%s", algorithm=MD5'
        return _message(status, [*copied, challenge % (who, REALM.encode(), NONCE.encode())])

    def _welcome(self, method: bytes, request: bytes, address: str) -> bool:
        if method in _OPEN or address in self._carriers:
            return True
        found, response = _DIGEST.search(request), _RESPONSE.search(request)
        if found is None or response is None:
            return False
        user, uri = found[1].decode("latin-1"), found[2].decode("latin-1")
        return response[1].decode() == response_to(NONCE, user, method.decode("latin-1"), uri)

    def _of_people(self, address: str) -> bool:
        # A flood has a new address each time: what is kept is small only for people.
        known = self._places.get(address)
        if known is None:
            one = ip_network(address)
            known = any(
                network.version == one.version and one.subnet_of(network)  # type: ignore[arg-type]
                for network in self._known
            )
            if known:
                self._places[address] = True
        return known


def _message(status: bytes, headers: Sequence[bytes]) -> bytes:
    tagged = [
        each + b";tag=lab" if each.startswith(b"To: ") and b";tag=" not in each else each
        for each in headers
    ]
    return b"\r\n".join([b"SIP/2.0 " + status, *tagged, b"Content-Length: 0", b"", b""])


def _listening(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind((address, PORT))
    opened.settimeout(0.0)
    return opened


def serve(registrar: Registrar) -> None:
    """Answer until SIGTERM comes."""
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    selector = selectors.DefaultSelector()
    for address in ("0.0.0.0", "::"):
        selector.register(_listening(address), selectors.EVENT_READ)
    _say("ready")
    while not ended:
        for key, _ in selector.select(0.1):
            ready: Any = key.fileobj
            with contextlib.suppress(BlockingIOError):
                for _ in range(256):
                    request, peer = ready.recvfrom(65535)
                    answer = registrar.answer(request, peer[0])
                    # Nobody may be there any more.
                    with contextlib.suppress(OSError):
                        if answer is not None:
                            ready.sendto(answer, peer)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> None:
    """Serve, then say what was counted."""
    parser = argparse.ArgumentParser(description="The registrar of a laboratory.")
    parser.add_argument("--people", nargs="*", default=[], help="networks of people")
    parser.add_argument("--carriers", nargs="*", default=[], help="addresses without a password")
    options = parser.parse_args(argv)
    be_prompt()
    registrar = Registrar(options.people, options.carriers)
    serve(registrar)
    _say(json.dumps({"strangers": registrar.strangers, "people": registrar.answers}))


if __name__ == "__main__":
    main(sys.argv[1:])
