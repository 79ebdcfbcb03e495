"""Somebody beside the switch: an address and a port from which SIP is sent."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from lab import sip
from packets.evidence.answers import RIGHT

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from lab import Family, Host, Lab
    from packets.evidence.wire import Place, Wire

WRONG = "wrong-password"


def login(password: str) -> tuple[str, str]:
    return ("Authorization", f'Digest username="1000", response="{password}"')


class Sender:
    """A place of a host: it writes messages as its own, and opens sockets there."""

    def __init__(
        self,
        lab: Lab,
        wire: Wire,
        host: Host,
        family: Family,
        port: int,
        *,
        source: str | None = None,
    ) -> None:
        self.host, self.wire, self.family = host, wire, family
        self.place: Place = (source or host.address(family), port)
        self.switch = lab.switch.address_for(host, family)

    def message(
        self,
        method: str,
        password: str | None = None,
        *,
        user: str = "1000",
        agent: str | None = None,
        transport: str = "UDP",
        call_id: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> bytes:
        return sip.request(
            method,
            source=self.place[0],
            destination=self.switch,
            source_port=self.place[1],
            user=user,
            user_agent=agent,
            transport=transport,
            call_id=call_id,
            extra_headers=[*headers, *([login(password)] if password else [])],
        )


class Phone(Sender):
    """A UDP phone."""

    def __init__(
        self,
        lab: Lab,
        wire: Wire,
        host: Host,
        family: Family,
        port: int,
        *,
        source: str | None = None,
    ) -> None:
        super().__init__(lab, wire, host, family, port, source=source)
        self.socket = wire.udp(host, self.place)

    def write(self, payload: bytes) -> None:
        self.socket.sendto(payload, (self.switch, 5060))

    def send(
        self,
        method: str,
        password: str | None = None,
        *,
        user: str = "1000",
        agent: str | None = None,
    ) -> None:
        self.write(self.message(method, password, user=user, agent=agent))

    def statuses(self, timeout: float = 0.5) -> list[int]:
        """Return the statuses that come until a final one or the end of the time."""
        deadline = time.monotonic() + timeout
        found: list[int] = []
        while select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            answer = sip.parse(self.socket.recv(65535))
            if answer is not None and answer.status is not None:
                found.append(answer.status)
                if answer.status >= 200:
                    break
        return found

    def drain(self) -> list[int]:
        found = []
        while status := self.statuses(0):
            found += status
        return found

    def ask(
        self,
        method: str,
        password: str | None = None,
        *,
        user: str = "1000",
        timeout: float = 0.5,
    ) -> int | None:
        """Send a request and return its final status, None where none comes."""
        self.drain()
        self.send(method, password, user=user)
        return next((status for status in self.statuses(timeout) if status >= 200), None)

    def login(self, method: str = "REGISTER", user: str = "1000") -> list[int | None]:
        """Ask without credentials and again with the right ones."""
        answers = [self.ask(method, user=user), self.ask(method, RIGHT, user=user)]
        if method == "INVITE":
            self.send("ACK", user=user)
        return answers

    def passes(self, method: str = "OPTIONS", timeout: float = 0.3) -> bool:
        """Tell whether a request is answered at all."""
        return self.ask(method, timeout=timeout) is not None


def beside(phone: Phone, lab: Lab, port: int) -> Phone:
    """Return another phone at the same address."""
    return Phone(lab, phone.wire, phone.host, phone.family, port, source=phone.place[0])


class Connection(Sender):
    """One TCP connection to a port of the switch."""

    def __init__(
        self,
        lab: Lab,
        wire: Wire,
        host: Host,
        family: Family,
        *,
        port: int = 5060,
        own_port: int = 0,
        source: str | None = None,
    ) -> None:
        super().__init__(lab, wire, host, family, own_port, source=source)
        self.socket: socket.socket = wire.tcp(host, self.place, (self.switch, port))
        self.place = (self.place[0], self.socket.getsockname()[1])

    def write(self, payload: bytes) -> bool:
        """Send and tell whether the connection still lived."""
        try:
            self.socket.sendall(payload)
        except OSError:
            return False
        return True

    def send(self, method: str, password: str | None = None, *, agent: str | None = None) -> bool:
        return self.write(self.message(method, password, agent=agent, transport="TCP"))

    def statuses(self, timeout: float = 0.5) -> list[int]:
        """Return the statuses that come until a final one, the end of the time or a reset."""
        deadline = time.monotonic() + timeout
        data = b""
        found: list[int] = []
        while not any(status >= 200 for status in found):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                break
            try:
                piece = self.socket.recv(65535)
            except OSError:
                break
            if not piece:
                break
            data += piece
            found = _statuses(data)
        return found

    def ask(self, method: str, password: str | None = None, timeout: float = 0.5) -> int | None:
        if not self.send(method, password):
            return None
        return next((status for status in self.statuses(timeout) if status >= 200), None)

    def login(self) -> list[int | None]:
        return [self.ask("REGISTER"), self.ask("REGISTER", RIGHT)]

    def dead(self, timeout: float = 1.0) -> bool:
        """Tell whether the other side resets or ends the connection within the time."""
        if not select.select([self.socket], [], [], timeout)[0]:
            return False
        try:
            return self.socket.recv(65535) == b""
        except OSError:
            return True


def _statuses(data: bytes) -> list[int]:
    lines = [line for line in data.split(b"\r\n") if line.startswith(b"SIP/2.0 ")]
    return [int(line.split(b" ")[1]) for line in lines]


def paced(seconds: float, count: int) -> Iterable[int]:
    """Count up to a number, evenly over some seconds."""
    started = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, started + seconds * number / count - time.monotonic()))
        yield number


def statuses_of(phones: Sequence[Phone], timeout: float = 0.3) -> list[int | None]:
    return [next(iter(phone.statuses(timeout)), None) for phone in phones]
