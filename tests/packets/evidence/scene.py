"""One test's scene: the lab, a firewall, a scripted switch and whoever plays against it."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from packets.evidence.answers import RIGHT, digest
from packets.evidence.client import WRONG, Connection, Phone, Sender, beside, paced
from packets.evidence.switch import Answerer, FakeSwitch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lab import Family, Host, Lab
    from packets.evidence.wire import Wire
    from packets.firewall import Firewall

# Routed to the attacker, who answers for every address of them.
FAR: Mapping[Family, str] = {"ip": "198.51.100.128/25", "ip6": "2001:db8:77::/48"}
# Every form, and both families of the two that write rules of their own for each.
IN_ALL_FORMS = pytest.mark.parametrize(
    ("firewall", "family"),
    [
        ("legacy", "ip6"),
        ("nft-flavour", "ip"),
        ("nftables", "ip"),
        ("nftables", "ip6"),
        ("script", "ip"),
    ],
    indirect=True,
)
WITH_SCRIPT = pytest.mark.parametrize(
    "firewall", ["legacy", "nft-flavour", "nftables", "script"], indirect=True
)
IN_TWO_FORMS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
MANY_GUESSES = 300


class Scene:
    """What a test plays with; everything that it opens is closed at the end."""

    def __init__(self, lab: Lab, firewall: Firewall, wire: Wire) -> None:
        self.lab, self.firewall, self.wire = lab, firewall, wire
        self._switch: FakeSwitch | None = None
        self._far_networks("replace")

    def start(
        self,
        policy: Mapping[str, Any] | None = None,
        answer: Answerer | None = None,
        tcp_ports: Sequence[int] = (),
    ) -> FakeSwitch:
        """Load a policy and let the switch answer; by default it wants a password."""
        self.firewall.load(policy)
        self._switch = FakeSwitch(self.lab, self.wire, answer or digest(), tcp_ports)
        return self._switch

    @property
    def switch(self) -> FakeSwitch:
        assert self._switch is not None
        return self._switch

    def far(self, family: Family, number: int, within: int = 1) -> str:
        """Return an address of the attacker's network: in IPv6 each number has its own /64."""
        if family == "ip6":
            return str(ip_address(f"2001:db8:77:{number:x}::{within:x}"))
        return str(ip_address("198.51.100.128") + number)

    def phone(self, family: Family, port: int, host: Host | None = None) -> Phone:
        return Phone(self.lab, self.wire, host or self.lab.office, family, port)

    def stranger(self, family: Family, number: int, port: int = 5080, within: int = 1) -> Phone:
        """Return somebody out there with an address, and in IPv6 a /64, of his own."""
        source = self.far(family, number, within)
        return Phone(self.lab, self.wire, self.lab.attacker, family, port, source=source)

    def connection(
        self, family: Family, host: Host | None = None, port: int = 5060, number: int | None = None
    ) -> Connection:
        source = None if number is None else self.far(family, number)
        host = host or (self.lab.attacker if number is not None else self.lab.office)
        return Connection(self.lab, self.wire, host, family, port=port, source=source)

    def target(self, family: Family, host: Host | None = None) -> str:
        return self.lab.switch.address_for(host or self.lab.attacker, family)

    def forge(
        self,
        victim: Sender | Phone,
        message: bytes,
        count: int,
        *,
        ports: Sequence[int] = range(30000, 30100),
        rate: float | None = None,
    ) -> None:
        """Let the attacker write datagrams in the victim's name, with his ports in turn."""
        sources = [victim.place[0]] * count
        self.lab.attacker.spoof_udp(sources, victim.switch, ports, 5060, message, pps=rate)

    @contextlib.contextmanager
    def forging(
        self, victim: Phone, message: bytes, rate: int, longest: float, ports: Sequence[int]
    ) -> Iterator[None]:
        """Let him do so until the block ends, or for the longest time that a test may take."""
        over = threading.Event()
        deadline = time.monotonic() + longest

        def work() -> None:
            while not over.is_set() and time.monotonic() < deadline:
                some = random.sample(ports, rate // 4)
                self.forge(victim, message, rate // 4, ports=some, rate=rate)

        with ThreadPoolExecutor(1) as beside_it:
            forging = beside_it.submit(work)
            try:
                yield
            finally:
                over.set()
            forging.result()

    def send_whole(self, host: Host, packets: Sequence[bytes], target: str) -> None:
        """Send packets from the IP header on."""
        opened = self.wire.raw(host, target)
        for packet in packets:
            opened.sendto(packet, (target, 0))

    def ban(self, phone: Phone) -> None:
        """Guess until the phone's INVITE is not answered any more."""
        for _ in range(60):
            phone.ask("REGISTER", WRONG, timeout=0.05)
            if phone.ask("INVITE", timeout=0.05) is None:
                return
        pytest.fail("sixty wrong passwords do not ban")

    def close(self) -> None:
        if self._switch is not None:
            self._switch.close()
        self._far_networks("delete")

    def _far_networks(self, verb: str) -> None:
        commands = [f"route {verb} local {network} dev lo\n" for network in FAR.values()]
        self.lab.attacker.run(["ip", "-batch", "-"], "".join(commands))


def guess(phones: Sequence[Phone], count: int, seconds: float, good_every: int = 0) -> None:
    """Send wrong passwords from these phones in turn, with a right one now and then."""
    for number in paced(seconds, count):
        phone = phones[number % len(phones)]
        good = good_every and number % good_every == good_every - 1
        phone.send("REGISTER", RIGHT if good else f"{WRONG}-{number}")


def learned_rates(phones: Sequence[Phone], scene: Scene, burst: int) -> list[bool]:
    """Tell of whose address many messages pass where a stranger's bucket holds a few."""
    fresh = [beside(each, scene.lab, each.place[1] + 10_000) for each in phones]
    for _ in range(3 * burst):
        for each in fresh:
            each.send("MESSAGE")
    scene.switch.rest()
    arrived = [
        len(scene.switch.heard(b"MESSAGE ", source=each.place[0], port=each.place[1]))
        for each in fresh
    ]
    return [count > 2 * burst for count in arrived]
