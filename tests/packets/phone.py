"""A phone that registers with digest authentication, and the registrar it talks to.

Knows the order of a login, no firewall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family, Host, Lab

PORT = 5060
RIGHT = 'Digest username="1000", response="right"'
WRONG = 'Digest username="1000", response="wrong"'
REGISTRAR: Mapping[str, object] = {"mode": "registrar", "good": ['response="right"']}


class Phone:
    """One phone behind `host`, told apart from its neighbours by its source port."""

    def __init__(
        self, lab: Lab, host: Host, family: Family, source_port: int, credentials: str = RIGHT
    ) -> None:
        self.target = lab.switch.address_for(host, family)
        self._own = host.address(family)
        self._port = source_port
        self._credentials = credentials
        self._socket = host.udp_socket(source_port)

    def send(self, method: str, *, authorized: bool = False, agent: str | None = None) -> None:
        headers = [("Authorization", self._credentials)] if authorized else []
        message = sip.request(
            method,
            source=self._own,
            destination=self.target,
            source_port=self._port,
            user_agent=agent,
            extra_headers=headers,
        )
        self._socket.send(self.target, PORT, message)

    def statuses(self, timeout: float = 0.5) -> list[int | None]:
        """Return the statuses of what came back, after one answer per request or `timeout`."""
        parsed = [sip.parse(reply.payload) for reply in self._socket.replies(timeout)]
        return [message.status for message in parsed if message is not None]

    def ask(
        self, method: str = "REGISTER", *, authorized: bool = False, timeout: float = 0.5
    ) -> int | None:
        """Send one request and return the status of its answer, None where none comes."""
        self.send(method, authorized=authorized)
        return next(iter(self.statuses(timeout)), None)

    def login(self) -> list[int | None]:
        """Register as every phone does: without credentials, and again with them."""
        return [self.ask(), self.ask(authorized=True)]
