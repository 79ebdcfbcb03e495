"""Phones that keep the timers of RFC 3261, and carriers, all in one loop of one thread.

A `Newcomer` is a phone that the switch has never seen: it registers, and repeats what is not
answered. A `Regular` asks again and again while the flood goes on, and repeats nothing, so that
each answer that is missing is a loss.
"""

from __future__ import annotations

import heapq
import itertools
import random
import re
import selectors
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lab import sip
from lab.flood.registrar import PORT, response_to

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

# RFC 3261, 17.1.2: a request over UDP is repeated after T1, then after twice as long each time,
# up to T2; timer F gives it up.
T1, T2, TIMER_F = 0.5, 4.0, 32.0
# A phone's clock is not in step with the kernel's tick, from which some limits take their tokens.
_OUT_OF_STEP = 0.008
_NONCE = re.compile(r'nonce="([^"]+)"')
_METHODS = ("OPTIONS", "INVITE", "REGISTER")


class Clock:
    """Runs what is due, and reads the sockets of those who wait for an answer."""

    def __init__(self) -> None:
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()

    def at(self, moment: float, what: Callable[[], None]) -> None:
        """Call `what` at a moment of the monotonic clock."""
        heapq.heappush(self._later, (moment, next(self._numbers), what))

    def listen(self, opened: socket.socket, hear: Callable[[bytes], None]) -> None:
        """Pass what arrives at a socket to `hear`."""
        opened.settimeout(0.0)
        self._selector.register(opened, selectors.EVENT_READ, hear)

    def forget(self, opened: socket.socket) -> None:
        """Read that socket no more."""
        self._selector.unregister(opened)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Go on until that moment, or until `done` says so."""
        while (now := time.monotonic()) < until and not done():
            wait = self._later[0][0] - now if self._later else until - now
            for key, _ in self._selector.select(max(0.0, min(wait, until - now, 0.1))):
                self._hear(key.fileobj, key.data)
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()

    @staticmethod
    def _hear(ready: Any, hear: Callable[[bytes], None]) -> None:
        for _ in range(64):
            try:
                answer = ready.recv(65535)
            except BlockingIOError:
                return
            hear(answer)

    def close(self) -> None:
        """Forget all sockets; whoever opened them closes them."""
        self._selector.close()


@dataclass(slots=True)
class Place:
    """Where somebody is, and whom he asks."""

    address: str
    port: int
    switch: str
    user: str

    def request(
        self, method: str, number: int, call_id: str, nonce: str | None = None, to_tag: str = ""
    ) -> bytes:
        """Return a request, with a digest where a nonce is given."""
        uri = f"sip:{sip.host_text(self.switch)}"
        target = uri if method == "REGISTER" else f"sip:{self.user}@{uri[4:]}"
        headers = [("Expires", "3600")] if method == "REGISTER" else []
        if nonce is not None:
            name = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
            response = response_to(nonce, self.user, method, target)
            value = f'Digest username="{self.user}", realm="sip.example", nonce="{nonce}", '
            headers.append((name, f'{value}uri="{target}", response="{response}"'))
        return sip.request(
            method,
            source=self.address,
            destination=self.switch,
            source_port=self.port,
            user=self.user,
            user_agent="Yealink SIP-T46U 108.86.0.45",
            call_id=call_id,
            cseq=number,
            to_tag=to_tag or None,
            extra_headers=headers,
        )


@dataclass(slots=True)
class Newcomer:
    """A phone that registers once, however long it takes."""

    place: Place
    socket: socket.socket
    clock: Clock
    sent: int = 0
    began: float | None = None
    waited: float | None = None
    nonce: str | None = None
    _number: int = 0
    _attempt: int = 0

    def start(self, moment: float) -> None:
        """Register at that moment."""
        self.clock.listen(self.socket, self._hear)
        self.clock.at(moment, self._begin)

    def _begin(self) -> None:
        self.began = time.monotonic()
        self._ask(None)

    def _ask(self, nonce: str | None) -> None:
        self._number += 1
        call_id = f"{self.place.user}@{sip.host_text(self.place.address)}"
        message = self.place.request("REGISTER", self._number, call_id, nonce)
        self._repeat(message, self._number, T1, time.monotonic() + TIMER_F)

    def _repeat(self, message: bytes, number: int, pause: float, ends: float) -> None:
        if number != self._number or self.waited is not None or time.monotonic() > ends:
            return
        self.sent += 1
        self.socket.sendto(message, (self.place.switch, PORT))
        following = min(2 * pause, T2)
        self.clock.at(
            time.monotonic() + pause + random.uniform(0, _OUT_OF_STEP),
            lambda: self._repeat(message, number, following, ends),
        )

    def _hear(self, answer: bytes) -> None:
        message = sip.parse(answer)
        if message is None or message.header("cseq") != f"{self._number} REGISTER":
            return
        if message.status == 200 and self.began is not None and self.waited is None:
            self.waited = time.monotonic() - self.began
        elif message.status == 401 and self.nonce is None:
            found = _NONCE.search(message.header("www-authenticate") or "")
            self.nonce = found[1] if found else ""
            self._ask(self.nonce)


@dataclass(slots=True)
class Regular:
    """Somebody who is known: `rate` requests a second of each method, each sent once.

    With a nonce he logs in with each REGISTER and INVITE, as a phone does that keeps its nonce.
    """

    place: Place
    socket: socket.socket
    clock: Clock
    nonce: str | None = None
    asked: int = 0
    waits: list[float] = field(default_factory=list)
    _open: dict[str, float] = field(default_factory=dict)

    def start(self, moment: float, seconds: float, rate: float) -> None:
        """Ask from that moment on, for so long; the methods take turns."""
        self.clock.listen(self.socket, self._hear)
        for number in range(int(seconds * rate) * len(_METHODS)):
            method = _METHODS[number % len(_METHODS)]
            when = moment + number / rate / len(_METHODS)
            self.clock.at(when, partial(self._ask, method, number))

    def _ask(self, method: str, number: int) -> None:
        call_id = f"{self.place.user}-{number}@{sip.host_text(self.place.address)}"
        nonce = None if method == "OPTIONS" else self.nonce
        self.asked += 1
        self._open[call_id] = time.monotonic()
        self._write(self.place.request(method, 1, call_id, nonce))

    def _hear(self, answer: bytes) -> None:
        message = sip.parse(answer)
        if message is None or message.status is None or message.status < 200:
            return
        call_id = message.header("call-id") or ""
        asked = self._open.pop(call_id, None)
        if asked is None or message.status != 200:
            return
        self.waits.append(time.monotonic() - asked)
        if (message.header("cseq") or "").endswith("INVITE"):
            self._write(self.place.request("ACK", 1, call_id, to_tag="lab"))

    def _write(self, message: bytes) -> None:
        self.socket.sendto(message, (self.place.switch, PORT))


def all_in(newcomers: Sequence[Newcomer]) -> bool:
    """Tell whether everybody is registered."""
    return all(each.waited is not None for each in newcomers)
