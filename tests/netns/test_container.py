"""A softswitch in a container is guarded by its host, before DNAT changes the address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import pytest
from container import container
from shared_host import BACKENDS, SharedHost

from lab import Family, Lab, sip, unavailable_reason
from sipfw.ruleset import rule as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Host, Node

pytestmark = pytest.mark.netns

POLICY = {
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}],
}
# What a REGISTER of a stranger may meet, before and after his ban.
PASSES = ("rate.accept", "banned.probation")
DROPS = ("rate.hashlimit", "recent.exceeded", "ban.drop", "banned.trickle")


@dataclass(frozen=True, slots=True)
class Place:
    """The lab with the container, and sipfw at work on the container's host."""

    lab: Lab
    host: SharedHost
    switch: Node

    def counted(self, family: Family) -> dict[str, int]:
        counts = self.host.kernel.counts(ir.Family(family))
        return {rule: count.packets for rule, count in counts.items()}

    def target(self, family: Family, host: Host | None = None) -> str:
        """Return the published address, which is the host's own."""
        return self.lab.switch.address_for(host or self.lab.attacker, family)

    def stranger(self, family: Family, number: int) -> str:
        """Return a source of its own for each test, since bans and limits remember sources."""
        # Longer than the network of the link, so that it never becomes a default source.
        address = f"198.51.100.{number}" if family == "ip" else f"2001:db8:66:{number}::1"
        length = "32" if family == "ip" else "128"
        words = ["ip", "address", "replace", f"{address}/{length}", "dev", "eth0"]
        self.lab.attacker.run([*words, "preferred_lft", "0"] if family == "ip6" else words)
        if family == "ip6":
            route = ["ip", "route", "replace", f"{address}/128", "via", "2001:db8:66::42"]
            self.lab.switch.run(route)
        return address


@pytest.fixture(scope="module", params=BACKENDS)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(forward=True) as lab:
        host = SharedHost(lab.switch, request.param, tmp_path_factory.mktemp("container"))
        with container(host) as switch:
            host.apply(POLICY)
            yield Place(lab, host, switch)


@pytest.fixture
def place(built: Place) -> Iterator[Place]:
    yield built
    built.switch.reset()
    built.lab.reset()


@pytest.fixture(params=get_args(Family))
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


def message(method: str, target: str, agent: str | None = None) -> bytes:
    return sip.request(method, source=target, destination=target, user_agent=agent)


# Rule -> who sends what.
SCANNERS = {
    "scanner.options-udp": (51, "OPTIONS", None),
    "scanner.ua.friendly-scanner": (52, "REGISTER", "friendly-scanner"),
}


@pytest.mark.parametrize("rule", SCANNERS)
def test_scanners_are_dropped_and_counted(rule: str, place: Place, family: Family) -> None:
    number, method, agent = SCANNERS[rule]
    sink = place.switch.udp_sink(5060)
    before = place.counted(family)[rule]
    source, target = place.stranger(family, number), place.target(family)
    place.lab.attacker.send_udp(target, 5060, [message(method, target, agent)] * 5, source=source)
    assert sink.settle(quiet=0.2) == 0
    assert place.counted(family)[rule] - before == 5


def test_a_banned_source_is_dropped(place: Place, family: Family) -> None:
    sink = place.switch.udp_sink(5060)
    source, target = place.stranger(family, 53), place.target(family)
    place.host.kernel.add("banned", source)
    before = place.counted(family)["banned.drop"]
    place.lab.attacker.send_udp(target, 5060, [message("INVITE", target)] * 5, source=source)
    assert sink.settle(quiet=0.2) == 0
    assert place.counted(family)["banned.drop"] - before == 5


def test_a_flood_of_registers_is_cut_and_banned(place: Place, family: Family) -> None:
    sink = place.switch.udp_sink(5060)
    source, target = place.stranger(family, 54), place.target(family)
    before = place.counted(family)
    flood = [message("REGISTER", target)] * 200
    place.lab.attacker.send_udp(target, 5060, flood, source=source, gap=0.002)
    delivered = sink.settle(quiet=0.2)
    after = place.counted(family)
    passed, dropped = (
        sum(after[rule] - before[rule] for rule in rules) for rules in (PASSES, DROPS)
    )
    assert 0 < delivered <= 60
    assert (passed, dropped) == (delivered, len(flood) - delivered)
    assert place.host.kernel.contains("banned", source)


def test_a_carriers_call_and_its_answer_get_through(place: Place, family: Family) -> None:
    carrier = place.lab.carrier
    sink = place.switch.udp_sink(5060, {"INVITE": [100, 180, 200], "*": 200})
    target = place.target(family, carrier)
    before = place.counted(family)["trusted.accept"]
    caller = carrier.udp_socket(5060)
    call = [message(each, target) for each in ("INVITE", "ACK", "OPTIONS", "BYE")]
    for each in call:
        caller.send(target, 5060, each)
    answers = caller.replies(timeout=2.0, count=5)
    assert [each.payload.split(b"\r\n")[0] for each in answers] == [
        b"SIP/2.0 100 Trying",
        b"SIP/2.0 180 Ringing",
        *[b"SIP/2.0 200 OK"] * 3,
    ]
    assert {each.source for each in answers} == {target}
    assert [each.payload for each in sink.arrivals()] == call
    assert {each.source for each in sink.arrivals()} == {carrier.address(family)}
    assert place.counted(family)["trusted.accept"] - before == 4


def test_a_phone_registers(place: Place, family: Family) -> None:
    sink = place.switch.udp_sink(5060, {"mode": "registrar", "good": ["secret"]})
    source, target = place.stranger(family, 55), place.target(family)
    phone = place.lab.attacker.udp_socket(5060, source=source)
    login = ("Authorization", 'Digest username="1000", response="secret"')
    answers = []
    for headers in ((), (login,)):
        request = sip.request(
            "REGISTER", source=source, destination=target, user_agent="Yealink",
            extra_headers=headers,
        )  # fmt: skip
        phone.send(target, 5060, request)
        answers += phone.replies(timeout=2.0)
    assert [each.payload[:11] for each in answers] == [b"SIP/2.0 401", b"SIP/2.0 200"]
    assert {each.source for each in sink.arrivals()} == {source}


def test_tcp_connections_of_a_source_are_limited(place: Place, family: Family) -> None:
    sink = place.switch.tcp_sink(5060)
    source, target = place.stranger(family, 56), place.target(family)
    before = place.counted(family)["connlimit.per-source"]
    for _ in range(10):
        place.lab.attacker.tcp_connect(target, 5060, source=source)
    with pytest.raises(TimeoutError):
        place.lab.attacker.tcp_connect(target, 5060, source=source, timeout=0.3)
    sink.settle()
    assert sink.connections() == 10
    assert place.counted(family)["connlimit.per-source"] - before == 1
