"""What a spoofer may touch: nobody who works, on whatever transport: rows 10, 15, 17 and 18."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from packets.cases import trusting
from packets.evidence.answers import RIGHT
from packets.evidence.client import WRONG, Connection, Phone, paced
from packets.evidence.scene import IN_ALL_FORMS, IN_TWO_FORMS, Scene
from packets.evidence.wire import datagram, syn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family

pytestmark = pytest.mark.netns

TLS = 5061
WITH_TLS: Mapping[str, Any] = {"signalling": {"tls": [TLS]}}
PORTS = (5060, TLS)
OTHER_PORTS = range(20000, 60000, 3)


def works(scene: Scene, connection: Connection, port: int) -> bool:
    """Tell whether what is written arrives, answered or (ciphertext) not."""
    if port == 5060:
        return connection.ask("REGISTER", RIGHT) == 200
    before = scene.switch.settled(source=connection.place[0], port=connection.place[1])
    connection.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    return scene.switch.settled(source=connection.place[0], port=connection.place[1]) > before


def all_streams_work(scene: Scene, open_ones: list[Connection], family: Family) -> None:
    for port, connection in zip(PORTS, open_ones, strict=True):
        assert works(scene, connection, port), f"the open connection to {port}"
    for port in PORTS:
        assert works(scene, scene.connection(family, port=port), port), f"a new one to {port}"


FORGERIES: Mapping[str, tuple[str, str | None, str | None, int]] = {
    "logins": ("REGISTER", WRONG, None, 12),
    "many-logins": ("REGISTER", WRONG, None, 120),
    "registers": ("REGISTER", None, None, 60),
    "calls": ("INVITE", None, None, 600),
}


@IN_TWO_FORMS
@pytest.mark.parametrize("forgery", FORGERIES)
def test_datagrams_in_his_name_touch_no_stream(forgery: str, scene: Scene) -> None:
    method, password, agent, count = FORGERIES[forgery]
    scene.start(WITH_TLS, tcp_ports=PORTS)
    streams = [scene.connection("ip", port=port) for port in PORTS]
    assert streams[0].ask("REGISTER") == 401
    customer = scene.phone("ip", 7000)
    forged = customer.message(method, password, agent=agent)
    scene.forge(customer, forged, count, rate=600)
    scene.switch.rest()
    all_streams_work(scene, streams, "ip")


@IN_ALL_FORMS
def test_forged_logins_touch_no_stream(scene: Scene, family: Family) -> None:
    scene.start(WITH_TLS, tcp_ports=PORTS)
    streams = [scene.connection(family, port=port) for port in PORTS]
    customer = scene.phone(family, 7000)
    scene.forge(customer, customer.message("REGISTER", WRONG), 30, rate=300)
    scene.switch.rest()
    all_streams_work(scene, streams, family)


@IN_ALL_FORMS
def test_forged_attempts_to_connect_touch_nobody(scene: Scene, family: Family) -> None:
    scene.start(WITH_TLS, tcp_ports=PORTS)
    streams = [scene.connection(family, port=port) for port in PORTS]
    own, target = streams[0].place[0], streams[0].switch
    neighbour = own.rpartition(":" if family == "ip6" else ".")[0]
    joint = ":" if family == "ip6" else "."
    packets = [syn((own, 30000 + n), (target, PORTS[n % 2])) for n in range(160)]
    # From addresses that nobody uses: these stay half open.
    packets += [
        syn((f"{neighbour}{joint}{10 + n}", 30000), (target, PORTS[n % 2])) for n in range(80)
    ]
    scene.send_whole(scene.lab.attacker, packets, target)
    time.sleep(0.1)
    all_streams_work(scene, streams, family)


def test_lies_about_a_length_use_up_nothing(scene: Scene) -> None:
    """A banned source's datagram that ends before its method is dropped for what it is."""
    scene.start({"scanners": {"block_unknown_methods": False}})
    customer = scene.phone("ip", 7000)
    scene.forge(customer, customer.message("REGISTER", WRONG), 30, rate=300)
    scene.switch.rest()
    assert customer.ask("INVITE", timeout=0.1) is None
    time.sleep(1.1)
    lies = [
        datagram((customer.place[0], 40000 + n), (customer.switch, 5060), b"REG", claimed=claimed)
        for n in range(150)
        for claimed in (17, 300)
    ]
    scene.send_whole(scene.lab.attacker, lies, customer.switch)
    assert customer.ask("REGISTER") == 401
    assert [each for each in scene.switch.heard() if each.port >= 40000] == []


def persist(phone: Phone, password: str | None, longest: float) -> int | None:
    """Send a REGISTER and repeat it like timer E of RFC 3261; return its final status."""
    message = phone.message("REGISTER", password)
    phone.drain()
    started = time.monotonic()
    pause = 0.5
    while time.monotonic() < started + longest:
        phone.write(message)
        for status in phone.statuses(pause):
            if status >= 200:
                return status
        pause = min(2 * pause, 4.0)
    return None


@pytest.mark.parametrize("password", [WRONG, None], ids=["logins", "registers"])
def test_a_phone_logs_in_beside_a_flood_in_its_name(password: str | None, scene: Scene) -> None:
    scene.start({"profile": "retail"})
    phone = scene.phone("ip", 7000)
    forged = phone.message("REGISTER", password)
    started = time.monotonic()
    with scene.forging(phone, forged, 1000, 40, OTHER_PORTS):
        # The ban in his name is there when he begins.
        time.sleep(1.0)
        assert persist(phone, None, 16) == 401
        assert persist(phone, RIGHT, 16) == 200
        assert time.monotonic() - started < 33


@pytest.mark.parametrize("password", [WRONG, None], ids=["logins", "registers"])
def test_a_learned_phone_works_beside_a_flood_in_its_name(
    password: str | None, scene: Scene
) -> None:
    scene.start({"profile": "retail"})
    phone = scene.phone("ip", 7000)
    assert phone.login() == [401, 200]
    with scene.forging(phone, phone.message("REGISTER", password), 1000, 10, OTHER_PORTS):
        time.sleep(0.5)
        for _ in paced(1.2, 8):
            assert phone.passes("OPTIONS")
            assert phone.login("INVITE") == [407, 200]
            assert phone.ask("BYE") == 200
        assert phone.login() == [401, 200]


def beside_forged_calls(
    scene: Scene, family: Family, ports: list[int], calls: int, seconds: float
) -> int:
    """Return how many of a carrier's INVITEs arrive beside 150 a second in its name."""
    carrier = scene.phone(family, 5060, scene.lab.carrier)
    forged = carrier.message("INVITE", user="66")
    count = int(150 * (seconds + 0.5))
    with ThreadPoolExecutor(1) as beside_it:
        forging = beside_it.submit(scene.forge, carrier, forged, count, ports=ports, rate=150)
        time.sleep(0.4)
        for _ in paced(seconds, calls):
            carrier.send("INVITE", user="77")
        forging.result()
    return scene.switch.settled(b"INVITE sip:77@")


@IN_ALL_FORMS
def test_a_carrier_with_a_tier_loses_no_call_to_a_spoofer(scene: Scene, family: Family) -> None:
    scene.start(trusting(tier="small"), answer=lambda _request: [])
    assert beside_forged_calls(scene, family, [5060, 5061, 31000], 60, 1.5) == 60


def test_a_tier_is_enforced_where_the_policy_says_so(scene: Scene) -> None:
    policy = {**trusting(tier="small"), "tiers": {"enforce": True}}
    scene.start(policy, answer=lambda _request: [])
    # Within what it has bought, beside forgeries of other ports.
    assert beside_forged_calls(scene, "ip", [31000, 31001], 16, 1.6) == 16
    carrier = scene.phone("ip", 5070, scene.lab.carrier)
    for _ in range(100):
        carrier.send("INVITE", user="88")
    assert 10 <= scene.switch.settled(b"INVITE sip:88@") <= 40
