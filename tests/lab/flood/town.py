"""The places around the switch: where people live, where the carrier is, where answers vanish."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from lab import LabError
from lab.channel import TESTS
from lab.flood.people import Clock, Newcomer, Place, Regular
from lab.flood.promptness import be_patient, be_prompt
from lab.flood.registrar import TICKS
from lab.flood.sender import Sent
from netns.namespace_thread import thread_inside

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from types import TracebackType

    from lab import Family, Host, Lab, Node

# Every phone in a network of its own, /24 or /48; RFC 2544 keeps 198.18.0.0/15 for such tests.
HOMES: Mapping[Family, str] = {"ip": "198.19.0.0/16", "ip6": "2001:db8:8000::/33"}
_SINK = "nowhere"
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h
_ENV = {**os.environ, "PYTHONPATH": str(TESTS)}


class Flood(NamedTuple):
    """What is sent: the kind of sources, datagrams a second, seconds, and whether each twice."""

    kind: str
    rate: int
    seconds: float
    again: float | None = None


class Reached(NamedTuple):
    """Datagrams of strangers that reached the switch: in all, a second, in the worst second."""

    total: int
    mean: float
    worst: int


class Town:
    """A laboratory with an office, in which people live; its registrar runs while it is open."""

    def __init__(self, lab: Lab, family: Family) -> None:
        self._lab, self.family = lab, family
        self._sockets: list[socket.socket] = []
        self.clock = Clock()
        self._homes = itertools.count(1)
        self._registrar: subprocess.Popen[str] | None = None
        self._flood: subprocess.Popen[str] | None = None
        self._counted: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._build_roads()
        # The sender has the last core to itself, see there.
        self._cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores - {max(self._cores)} or self._cores)
        be_prompt()
        people = [*HOMES.values(), *(self._lab.carrier.address(each) for each in HOMES)]
        carriers = [self._lab.carrier.address(each) for each in HOMES]
        words = ["--people", *people, "--carriers", *carriers]
        self._registrar = _program(self._lab.switch, "registrar", words)
        if _line(self._registrar) != "ready\n":
            raise LabError(f"the registrar does not start: {_complaint(self._registrar)}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in (self._flood, self._registrar):
            if program is not None and program.poll() is None:
                program.kill()
                program.wait()
        os.sched_setaffinity(0, self._cores)
        be_patient()
        self.clock.close()
        for each in self._sockets:
            each.close()
        self._remove_roads()

    def newcomer(self, beside: Newcomer | None = None) -> Newcomer:
        """Return a phone in a network of its own, or at another's address, that nobody has seen."""
        number = next(self._homes)
        home = f"198.19.{number}.20" if self.family == "ip" else f"2001:db8:{0x8000 + number:x}::20"
        source = (beside.place.address if beside else home, 5100 + number)
        place = Place(*source, self._target(), str(1000 + number))
        return Newcomer(place, self._socket_of(self._lab.office, source), self.clock)

    def regular(self, phone: Newcomer) -> Regular:
        """Return a registered phone as one that works on."""
        regular = Regular(phone.place, phone.socket, self.clock, phone.nonce)
        self.clock.forget(phone.socket)
        return regular

    def carrier(self) -> Regular:
        """Return the trusted carrier."""
        carrier = self._lab.carrier
        address = carrier.address(self.family)
        place = Place(address, 5060, self._target(), "77")
        return Regular(place, self._socket_of(carrier, (address, 5060)), self.clock)

    def flood(self, flood: Flood) -> None:
        """Begin a flood and return when its first packets leave; it ends by itself."""
        words = [flood.kind, self.family, self._target()]
        words += ["--rate", str(flood.rate), "--count", str(int(flood.rate * flood.seconds))]
        words += ["--longest", str(flood.seconds + 1), "--seed", str(time.monotonic_ns())]
        words += ["--core", str(max(self._cores))]
        words += [] if flood.again is None else ["--again", str(flood.again)]
        self._flood = _program(self._lab.attacker, "sender", words)
        if _line(self._flood) != "begins\n":
            raise LabError(f"the flood does not begin: {_complaint(self._flood)}")

    def flooded(self) -> Sent:
        """Wait for its end and return what was sent."""
        if self._flood is None:
            raise LabError("there was no flood")
        said = _line(self._flood)
        if not said:
            raise LabError(f"the flood failed: {_complaint(self._flood)}")
        return Sent(*json.loads(said))

    def _close_registrar(self) -> None:
        if self._registrar is None or self._counted:
            return
        self._registrar.terminate()
        self._counted = json.loads(_line(self._registrar))

    def reached(self, began: float, seconds: float) -> Reached:
        """Return what strangers got through to the switch in that time; nobody asks it then."""
        self._close_registrar()
        ticks = [0] * int(seconds * TICKS)
        first = int(began * TICKS)
        for text, count in self._counted["strangers"].items():
            place = int(text) - first
            if 0 <= place < len(ticks):
                ticks[place] = count
        sums = [0, *itertools.accumulate(ticks)]
        worst = max(sums[min(at + TICKS, len(ticks))] - sums[at] for at in range(len(ticks)))
        return Reached(sums[-1], sums[-1] / seconds, worst)

    def heard(self, person: Newcomer, method: str = "REGISTER") -> int:
        """Return how many such requests of somebody's address reached the switch."""
        self._close_registrar()
        count: int = self._counted["people"].get(f"{method} {person.place.address}", 0)
        return count

    def _socket_of(self, host: Host, place: tuple[str, int]) -> socket.socket:
        with thread_inside(host.namespace) as inside:
            opened = inside.submit(_bound, place).result()
        self._sockets.append(opened)
        return opened

    def _target(self) -> str:
        """Return the one address at which all ask: a flood takes nothing of another one."""
        return self._lab.switch.address_for(self._lab.attacker, self.family)

    def _build_roads(self) -> None:
        """Let the office answer for every home, and let the answers to forged sources vanish."""
        switch, office, attacker = self._lab.switch, self._lab.office, self._lab.attacker
        for home in HOMES.values():
            office.run(["ip", "route", "add", "local", home, "dev", "lo"])
        # Without ARP each frame goes to no machine's address: the other end drops it at once.
        peer = ["peer", "name", _SINK, "netns", attacker.namespace]
        switch.run(["ip", "link", "add", _SINK, "type", "veth", *peer])
        for node in (attacker, switch):
            node.run(["ip", "link", "set", _SINK, "arp", "off", "up"])
        for family, home in HOMES.items():
            switch.run(["ip", "route", "add", home, "via", office.address(family)])
        # More specific than the laboratory's default routes, which stay for the time after.
        for whole in ("0.0.0.0/0", "::/0"):
            for half in ip_network(whole).subnets():
                switch.run(["ip", "route", "add", str(half), "dev", _SINK])

    def _remove_roads(self) -> None:
        for family, home in HOMES.items():
            self._lab.office.run(["ip", "route", "delete", "local", home, "dev", "lo"])
            way = ["via", self._lab.office.address(family)]
            self._lab.switch.run(["ip", "route", "delete", home, *way])
        self._lab.switch.run(["ip", "link", "delete", _SINK])


def _bound(place: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    opened.bind(place)
    return opened


def _program(node: Node, module: str, words: list[str]) -> subprocess.Popen[str]:
    return node.popen([sys.executable, "-m", f"lab.flood.{module}", *words], env=_ENV)


def _line(program: subprocess.Popen[str]) -> str:
    if program.stdout is None:
        raise LabError("the program has no output")
    return program.stdout.readline()


def _complaint(program: subprocess.Popen[str]) -> str:
    return program.stderr.read() if program.stderr is not None else ""
