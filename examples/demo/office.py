"""An office of phones behind one address: they register, and each of their lamp keys subscribes.

Every request is challenged first, as a switch does: a firewall that takes challenges for failures
shuts the office out. A wrong number and a keep-alive that is refused are there for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scene import ACCOUNTS, RIGHT, SIP_PORT, WRONG_NUMBER, Scene

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import UdpSocket

PHONES = 5
LAMP_KEYS = 24
FIRST_PORT = 30000
CREDENTIALS = ("Authorization", RIGHT)
# RFC 3261, timer E: what got no answer is repeated.
PATIENCE = 0.5
TRIES = 4


@dataclass(frozen=True)
class Office:
    """What the phones asked, and how much of it was answered."""

    asked: int
    answered: int


def work(scene: Scene) -> Office:
    """Let all phones do what phones do, one after the other, and count."""
    asked = answered = 0
    for number in range(PHONES):
        phone = scene.lab.office.udp_socket(FIRST_PORT + number)
        for method, user, login in _requests():
            asked += 1
            answered += _ask(scene, phone, method, user, login=login)
        phone.close()
    return Office(asked, answered)


def _requests() -> Iterator[tuple[str, str, bool]]:
    own = ACCOUNTS[0]
    yield from (("REGISTER", own, False), ("REGISTER", own, True))
    for key in range(LAMP_KEYS):
        yield from (("SUBSCRIBE", f"2{key:02}", False), ("SUBSCRIBE", f"2{key:02}", True))
    yield from (("MESSAGE", WRONG_NUMBER, False), ("NOTIFY", own, False))


def _ask(scene: Scene, phone: UdpSocket, method: str, user: str, *, login: bool) -> bool:
    target, own = scene.lab.switch.address_for(scene.lab.office), scene.lab.office.address4
    headers = [CREDENTIALS] if login else []
    request = sip.request(method, source=own, destination=target, user=user, extra_headers=headers)
    for _ in range(TRIES):
        phone.send(target, SIP_PORT, request)
        if phone.replies(timeout=PATIENCE):
            return True
    return False
