"""Sends what an attack sends, from its addresses and ports and at its pace."""

from __future__ import annotations

import secrets
import select
import socket
import time
from typing import TYPE_CHECKING

from sipfw.prove import digest, sip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sipfw.policy.scenario import Attack

_FIRST_PORT = 20000
# How long an answer to the last packet may take.
_LINGER = 0.3


class Attacker:
    """One attack under way; `moments` are when each packet left."""

    def __init__(self, attack: Attack, sources: Sequence[str], target: tuple[str, int]) -> None:
        self._attack, self._sources, self._target = attack, sources, target
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._guess = 0
        self.moments: list[float] = []

    @property
    def lateness(self) -> float:
        """How many times longer than meant it took, at least 1: limits let in so many per second.

        A host that computes something else sends late.
        """
        meant = (self._attack.packets - 1) / self._attack.rate
        took = self.moments[-1] - self.moments[0] if self.moments else 0.0
        return max(1.0, took / meant) if meant else 1.0

    def play(self) -> None:
        """Send everything, and close what was opened."""
        attack = self._attack
        started = time.monotonic()
        try:
            for number in range(attack.packets):
                due = started + number / attack.rate
                if attack.guesses:
                    self._answer_challenges(max(0.0, due - time.monotonic()))
                elif (early := due - time.monotonic()) > 0.002:
                    time.sleep(early)
                self._send(number)
            if attack.guesses:
                self._answer_challenges(_LINGER)
        finally:
            for opened in self._sockets.values():
                opened.close()

    def _send(self, number: int) -> None:
        attack = self._attack
        source = self._sources[number % len(self._sources)]
        port = _FIRST_PORT + number // len(self._sources) % attack.ports
        opened = self._sockets.get((source, port))
        if opened is None:
            opened = self._open(source, port)
        self._out(opened, filled(attack.message, source, port, self._target[0], number))

    def _open(self, source: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM)
        opened.settimeout(0)
        opened.bind((source, port))
        self._sockets[source, port] = opened
        return opened

    def _out(self, opened: socket.socket, data: bytes) -> None:
        try:
            opened.sendto(data, self._target)
        except BlockingIOError:
            select.select([], [opened], [], 0.1)
            opened.sendto(data, self._target)
        self.moments.append(time.monotonic())

    def _answer_challenges(self, seconds: float) -> None:
        """Meet each challenge that comes in this time with a password that is wrong."""
        deadline = time.monotonic() + seconds
        while self._sockets:
            left = max(0.0, deadline - time.monotonic())
            poll = select.poll()
            by_number = {each.fileno(): each for each in self._sockets.values()}
            for number in by_number:
                poll.register(number, select.POLLIN)
            for number, _ in poll.poll(left * 1000):
                self._meet(by_number[number])
            if left == 0:
                return

    def _meet(self, opened: socket.socket) -> None:
        try:
            data = opened.recv(65535)
        except OSError:
            return
        answer = sip.parse(data)
        if answer is None or answer.status not in {401, 407}:
            return
        challenge = answer.header("www-authenticate") or answer.header("proxy-authenticate")
        if challenge is None:
            return
        self._guess += 1
        address, port = opened.getsockname()[:2]
        uri = f"sip:{sip.host_text(self._target[0])}"
        password = f"guess{self._guess}"
        credentials = digest.authorization(
            challenge, "REGISTER", uri, user="1000", password=password
        )
        message = sip.request(
            "REGISTER",
            source=address,
            destination=self._target[0],
            source_port=port,
            user_agent="Grandstream GXP1625 1.0.7.13",
            cseq=2,
            extra_headers=[credentials],
        )
        self._out(opened, message)


def filled(template: str, source: str, port: int, target: str, number: int) -> bytes:
    """Fill a message in; what is no place for a value stays as it is written."""
    values = {
        "source": sip.host_text(source),
        "port": str(port),
        "target": sip.host_text(target),
        "user": str(1000 + number % 9000),
        "number": str(number),
        "random": secrets.token_hex(6),
        "long": "x" * 3000,
    }
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    text = template.replace("\r\n", "\n")
    if text.partition("\n")[0].endswith(" SIP/2.0") and "\n\n" not in text:
        # A block of YAML ends with its last line, a message with an empty one.
        text += "\n"
    return text.replace("\n", "\r\n").encode("utf-8", "replace")
