"""Four lifetimes of a registration, compressed: forty phones work, and many play against them.

The figures that are measured by the minute stay as they are but for the volume of a connection: a
phone says in half a minute here what it says in four hours.
"""

from __future__ import annotations

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from packets.cases import CARRIER
from packets.registrar import needs
from packets.story import moves
from packets.story.account import Account
from packets.story.conftest import SVWAR, SVWAR_PORT
from packets.story.handset import Handset, Ledger
from packets.story.moves import Attacker, Clock
from packets.story.switchboard import TLS_PORT, Switchboard, target
from packets.story.ways import Datagrams, Stream, encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lab import Host, Lab
    from packets.evidence.wire import Place, Wire
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio", "svcrack", "svwar", "openssl")]

LIFETIME, LIFETIMES = 8, 4
RENEWAL = 6.0
KEYS = 12
FAILURES = 20  # profile retail
PROVIDER = "203.0.113.130"
DISGUISE = ["friendly-scanner", "sipvicious-svcrack-contact"]
POLICY: Mapping[str, Any] = {
    "profile": "retail",
    "signalling": {"tls": [TLS_PORT]},
    "trusted_peers": [{**CARRIER, "tier": "small"}],
    "tiers": {"enforce": True},
    "learning": {"registered_ttl": f"{LIFETIME}s"},
    "limits": {"stream": {"per_connection": 4 * 49152}},
    "scanners": {"user_agents": {"remove": DISGUISE}},
}
OFFICE = "192.0.2.100"
HOMES = [f"192.0.2.{130 + number}" for number in range(12)]
# A spoofer writes in this one's name before it has logged in, in the office's after that.
FRAMED = HOMES[-1]
FORGED_PORTS = range(20000, 60000, 3)


class Phones:
    """Forty accounts: twenty in an office behind one address, the others at home."""

    def __init__(self, lab: Lab, wire: Wire, ledger: Ledger) -> None:
        self._lab, self._wire, self._ledger = lab, wire, ledger
        numbers = itertools.count(100)
        at_office = [(OFFICE, 7000 + n) for n in range(20)]
        at_home = [(address, 7100 + n) for n, address in enumerate(HOMES)]
        self.places: list[Place] = [*at_office, *at_home]
        over_six = [(lab.office.address6, 7200 + n) for n in range(2)]
        self.all = [
            *(self.udp(lab.office, str(next(numbers)), place) for place in self.places),
            *(self.udp(lab.office, str(next(numbers)), place) for place in over_six),
            *(self._stream(str(next(numbers)), HOMES[n], tls=False) for n in range(3)),
            *(self._stream(str(next(numbers)), HOMES[n], tls=True) for n in range(3)),
        ]

    def udp(self, host: Host, user: str, place: Place, label: str = "") -> Handset:
        where = target(self._lab, six=":" in place[0])
        way = Datagrams(self._wire.udp(host, place), where)
        return Handset(Account(user, place[0], where), way, self._ledger, label)

    def _stream(self, user: str, address: str, *, tls: bool) -> Handset:
        where = target(self._lab, tls=tls)
        opened = self._wire.tcp(self._lab.office, (address, 0), where)
        way = Stream(self._wire.keep(encrypted(opened)) if tls else opened)
        account = Account(user, address, where, "TLS" if tls else "TCP")
        return Handset(account, way, self._ledger, account.transport)

    def live(self, phone: Handset, clock: Clock, ready: set[str]) -> None:
        """Register, watch twelve lamps, call and be called, and again, until the story ends."""
        user = phone.account.user
        chance = random.Random(user)
        phone.idle(chance.random() * 0.5 + 1.5 * (user == self.framed.account.user))
        while clock.left > 1:
            renewal = time.monotonic() + RENEWAL
            if not phone.register(LIFETIME):
                continue
            ready.add(user)
            phone.watch([str(100 + n) for n in range(KEYS)])
            while (left := renewal - time.monotonic()) > 1:
                phone.idle(min(chance.random() * 3, left))
                others = sorted(ready - {user})
                if clock.left > 1 and others:
                    number = chance.choice([chance.choice(others), "90001"])
                    phone.call(number, chance.random() * 0.5)
                    phone.ask(phone.account.request("OPTIONS", "ping"), {200})
            phone.idle(max(0.0, renewal - time.monotonic()))
        # Whoever is called last may still hang up.
        phone.idle(clock.left + 2)

    @property
    def framed(self) -> Handset:
        return self.all[len(self.places) - 1]


def carrier_calls(carrier: Handset, clock: Clock, ready: set[str]) -> None:
    chance = random.Random(1)
    for _ in clock.rounds(0.5):
        if ready and clock.left > 1:
            carrier.call(chance.choice(sorted(ready)), 0.1, trusted=True)


def serve(handset: Handset, clock: Clock) -> None:
    handset.idle(clock.left + 2)


def attackers(lab: Lab, wire: Wire) -> dict[str, Attacker]:
    names = ["insider", "row 11", "forger", "row 12", "row 13a", "row 13b"]
    return {name: Attacker(lab, wire, f"198.51.100.{140 + n}") for n, name in enumerate(names)}


def taught(firewall: Firewall, bad: Mapping[str, Attacker]) -> list[str]:
    return [
        name
        for name in ("row 11", "forger", "row 12", "row 13a", "row 13b")
        if firewall.contains("learned", bad[name].address)
    ]


def watched(
    firewall: Firewall, bad: Mapping[str, Attacker], customers: list[str], clock: Clock
) -> list[str]:
    """Look again and again who was taught, and who was banned, of those who should not be."""
    found = []
    for _ in clock.rounds(3.1):
        found += [f"{name} was taught" for name in taught(firewall, bad)]
        found += [f"{each} is banned" for each in customers if firewall.contains("banned", each)]
    return found


@pytest.fixture
def switchboard(lab: Lab, tmp_path: Path) -> Iterator[Switchboard]:
    with Switchboard(lab, tmp_path, PROVIDER) as running:
        yield running


@pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
def test_four_lifetimes_of_forty_phones(
    lab: Lab, firewall: Firewall, wire: Wire, switchboard: Switchboard, tmp_path: Path
) -> None:
    firewall.load(POLICY)
    ledger, ready = Ledger(), set[str]()
    bad = attackers(lab, wire)
    clock = Clock(LIFETIME * LIFETIMES + 1)
    tools = [
        moves.svcrack(lab, tmp_path, 5099),
        moves.svwar(lab, tmp_path, SVWAR_PORT),
    ]
    with ThreadPoolExecutor(64) as everybody:
        plays = [
            everybody.submit(moves.spoofer, lab, FRAMED, OFFICE, FORGED_PORTS, clock),
            everybody.submit(moves.insider, bad["insider"], clock),
        ]
        phones = Phones(lab, wire, ledger)
        carrier = phones.udp(lab.carrier, "800", (lab.carrier.address4, 5060), "carrier")
        provider = phones.udp(lab.carrier, "90001", (PROVIDER, 5060), "provider")
        cheats = [bad["row 12"], bad["row 13a"], bad["row 13b"]]
        unharmed = phones.places[20:-1]
        customers = [address for address, _ in unharmed]
        connections = everybody.submit(
            moves.guesses_on_connections_of_the_switch, bad["row 11"], clock
        )
        looks = everybody.submit(watched, firewall, bad, customers, clock)
        plays += [
            everybody.submit(moves.tricks, bad["forger"], unharmed, cheats, clock),
            everybody.submit(serve, provider, clock),
            everybody.submit(carrier_calls, carrier, clock, ready),
            *(everybody.submit(phones.live, each, clock, ready) for each in phones.all),
        ]
        for each in plays:
            each.result()
    for tool in tools:
        tool.kill()
    switchboard.settle()
    seconds = time.monotonic() - clock.started
    print("\n" + ledger.table())  # noqa: T201 -- the story is told
    print("\n".join(ledger.lost[:40]))  # noqa: T201
    bounds = guesses(lab, switchboard, bad, seconds)
    for name, (judged, bound) in bounds.items():
        print(f"{name:<34}{judged:>6} judged, bound {bound}")  # noqa: T201
    print(f"connections of the switch: {connections.result()}, {seconds:.1f} s")  # noqa: T201
    assert ledger.lost == []
    assert looks.result() == []
    assert {name: found for name, found in bounds.items() if found[0] > found[1]} == {}
    assert connections.result() > 0
    assert min(judged for judged, _ in bounds.values()) > 0
    assert len(ready) == 40


def guesses(
    lab: Lab, switchboard: Switchboard, bad: Mapping[str, Attacker], seconds: float
) -> dict[str, tuple[int, int]]:
    """Return for each guesser how many of his guesses were judged, and how many may be."""
    by_port: dict[int, int] = {}
    for each in switchboard.guesses(bad["insider"].address):
        by_port[each.port] = by_port.get(each.port, 0) + 1
    names = switchboard.verdicts(SVWAR, kind="bare")
    outward = switchboard.guesses(bad["row 11"].address)
    return {
        "svcrack": (len(switchboard.guesses(lab.attacker.address4)), FAILURES + 20),
        # On probation his port may ask four times a second, four times at once.
        "svwar, names": (len(names), FAILURES + 4 + int(4 * seconds) + 4),
        "insider, from his worst port": (max(by_port.values(), default=0), FAILURES + 4),
        "insider, from his address": (sum(by_port.values()), 8 * FAILURES),
        "on connections of the switch": (len(outward), 5 * FAILURES),
    }
