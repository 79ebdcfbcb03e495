"""The switch's replies over TCP judge like those over UDP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sip
from packets.cases import trusting
from packets.phone import REGISTRAR, RIGHT, WRONG

if TYPE_CHECKING:
    from lab import Family, Lab, TcpConnection
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

FAILURES = 10


class TcpPhone:
    """A phone that asks over one connection for as long as it lasts."""

    def __init__(self, lab: Lab, role: str, family: Family, credentials: str) -> None:
        host = lab.hosts[role]
        self._own, self._target = host.address(family), lab.switch.address_for(host, family)
        self._credentials = credentials
        self._connection: TcpConnection = host.tcp_connect(self._target, 5060)

    def ask(self, method: str = "REGISTER", *, authorized: bool = True) -> int | None:
        message = sip.request(
            method,
            source=self._own,
            destination=self._target,
            transport="TCP",
            extra_headers=[("Authorization", self._credentials)] if authorized else [],
        )
        self._connection.send(message)
        answer = sip.parse(self._connection.received(timeout=0.3))
        return answer.status if answer else None


def test_a_login_teaches(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    lab.switch.tcp_sink(5060, REGISTRAR)
    own = lab.office.address(family)
    phone = TcpPhone(lab, "office", family, RIGHT)
    assert phone.ask(authorized=False) == 401
    assert not firewall.contains("learned", own)
    assert phone.ask() == 200
    assert firewall.counted("stream.2xx", family) == 1
    assert firewall.counted("learn.add", family) == 1
    assert firewall.contains("learned", own)
    # Learned is learned for UDP too: the source is the same.
    sink = lab.switch.udp_sink(5060)
    scanner = sip.request("OPTIONS", source=own, destination=own, user_agent="friendly-scanner")
    lab.office.send_udp(lab.switch.address_for(lab.office, family), 5060, scanner)
    assert sink.settle() == 1


def test_failures_ban(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"learning": {"failures": FAILURES}})
    sink = lab.switch.tcp_sink(5060, REGISTRAR)
    attacker = TcpPhone(lab, "attacker", family, WRONG)
    answers = [attacker.ask() for _ in range(FAILURES)]
    assert answers[: FAILURES - 1] == [403] * (FAILURES - 1)
    assert firewall.counted("stream.403", family) >= FAILURES - 1
    assert firewall.contains("banned", lab.attacker.address(family))
    assert firewall.contains("banned-tcp", lab.attacker.address(family))
    reached = sink.settle()
    assert attacker.ask() is None
    assert sink.settle() == reached
    assert firewall.counted("streams.drop", family) >= 1


def test_failures_of_a_trusted_peer_do_not_ban(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(trusting())
    lab.switch.tcp_sink(5060, {"*": 403})
    peer = TcpPhone(lab, "carrier", family, WRONG)
    assert [peer.ask("INVITE") for _ in range(50)] == [403] * 50
    # Segments to a peer are not searched.
    assert firewall.counted("stream.to-trusted", family) >= 50
    assert not firewall.contains("banned", lab.carrier.address(family))
