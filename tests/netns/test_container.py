"""A softswitch in a container is guarded by its host, before DNAT changes the address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import pytest
from container import ADDRESS, container
from shared_host import BACKENDS, SharedHost

from lab import Family, Lab, sip, unavailable_reason
from lab.closing import end
from sipfw.ruleset import rule as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Host, Node

pytestmark = pytest.mark.netns

POLICY = {
    "signalling": {"behind": ["docker*"]},
    "learning": {"failures": 5},
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}],
}
# What a REGISTER of a stranger may meet, before and after his ban.
PASSES = ("rate.accept", "banned.probation")
DROPS = ("rate.hashlimit", "recent.exceeded", "ban.drop", "banned.port", "banned.trickle")
WRONG = ("Authorization", 'Digest response="wrong"')


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


def message(method: str, target: str, agent: str | None = None, *headers: tuple[str, str]) -> bytes:
    return sip.request(
        method, source=target, destination=target, user_agent=agent, extra_headers=list(headers)
    )


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


def test_ports_that_are_used_again_count(place: Place, family: Family) -> None:
    place.switch.tcp_sink(5060)
    source, target = place.stranger(family, 57), place.target(family)
    attacker = place.lab.attacker
    # More would meet limits.recent, which counts every SYN.
    used, fresh = range(42001, 42009), range(42009, 42012)
    for port in used:
        opened = attacker.tcp_connect(target, 5060, source=source, source_port=port)
        end(place.lab, opened, "reset")
    before = place.counted(family)["connlimit.per-source"]
    for port in (*used, *fresh[:2]):
        attacker.tcp_connect(target, 5060, source=source, source_port=port, timeout=0.5)
    with pytest.raises(TimeoutError):
        attacker.tcp_connect(target, 5060, source=source, source_port=fresh[2], timeout=0.3)
    assert place.counted(family)["connlimit.per-source"] - before == 1


@pytest.mark.parametrize("method", ["OPTIONS", "INVITE", "REGISTER"])
def test_what_the_switch_itself_asks_is_never_limited(
    method: str, place: Place, family: Family
) -> None:
    """Its requests come in through the bridge, to port 5060: as those of a stranger would."""
    sink = place.lab.carrier.udp_sink(5060, {"*": 200})
    trunk = place.switch.udp_socket(5060)
    target = place.lab.carrier.address(family)
    answered = 0
    # A socket's queue holds some 170 answers.
    for _ in range(3):
        for _ in range(100):
            trunk.send(target, 5060, message(method, target))
        answered += len(trunk.replies(timeout=2.0, count=100))
    assert answered == sink.count() == 300


def test_connections_of_the_switch_itself_are_not_counted(place: Place, family: Family) -> None:
    sink = place.lab.carrier.tcp_sink(5060)
    for _ in range(15):
        place.switch.tcp_connect(place.lab.carrier.address(family), 5060, timeout=0.5)
    sink.settle()
    assert sink.connections() == 15


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_success_teaches(transport: str, place: Place, family: Family) -> None:
    number = {"udp": 58, "tcp": 59}[transport]
    source, target = place.stranger(family, number), place.target(family)
    script = {"REGISTER": 200}
    request = message("REGISTER", target)
    if transport == "udp":
        place.switch.udp_sink(5060, script)
        phone = place.lab.attacker.udp_socket(5060, source=source)
        phone.send(target, 5060, request)
        assert phone.replies(timeout=2.0)
    else:
        place.switch.tcp_sink(5060, script)
        connection = place.lab.attacker.tcp_connect(target, 5060, source=source)
        connection.send(request)
        assert connection.received(timeout=2.0)
    assert place.host.kernel.contains("learned", source)


def test_failures_ban(place: Place, family: Family) -> None:
    sink = place.switch.udp_sink(5060, {"*": 401})
    source, target = place.stranger(family, 60), place.target(family)
    guesser = place.lab.attacker.udp_socket(5060, source=source)
    for _ in range(5):
        guesser.send(target, 5060, message("REGISTER", target, None, WRONG))
        assert guesser.replies(timeout=2.0)
    assert place.host.kernel.contains("banned", source)
    guesser.send(target, 5060, message("INVITE", target))
    sink.settle(quiet=0.2)
    assert len(sink.arrivals()) == 5


def test_a_policy_that_names_no_bridge_is_warned_of(place: Place) -> None:
    unnamed = {"trusted_peers": POLICY["trusted_peers"]}
    words = ("--backend", place.host.backend, "--policy", place.host.policy(unnamed))
    done = place.host.sipfw("apply", "--dry-run", *words)
    assert done.returncode == 0
    warning = "warning: signalling.behind: port 5060 is sent on to a container"
    assert [line for line in done.stderr.splitlines() if line.startswith(warning)]
    done = place.host.sipfw("apply", "--dry-run", *words, "--set", "signalling.behind=[docker0]")
    assert warning not in done.stderr


def test_the_way_to_the_internet_is_no_bridge(place: Place) -> None:
    words = ("--backend", place.host.backend, "--policy", place.host.policy(POLICY))
    route = ["ip", "-6", "route", "add", "default", "dev", "docker0", "metric", "4000"]
    place.host.node.run(route)
    try:
        done = place.host.sipfw("apply", *words)
        forced = place.host.sipfw("apply", *words, "--force")
    finally:
        place.host.node.run([*route[:3], "del", *route[4:]])
    assert done.returncode == 4
    assert "policy.yaml:4: signalling.behind: docker0 is where the default" in done.stderr
    assert forced.returncode == 0
    assert "FORCED: docker0 is where the default" in forced.stderr


def test_why_knows_the_way_of_the_containers_packets(place: Place, family: Family) -> None:
    done = place.host.sipfw("why", ADDRESS[family], "--method", "OPTIONS", "--transport", "udp")
    assert done.returncode == 0
    assert "entry.behind-1" in done.stdout or "switch.other" in done.stdout
    assert "docker" in done.stdout
    done = place.host.sipfw("why", "198.51.100.61", "--method", "OPTIONS", "--transport", "udp")
    assert "scanner.options-udp" in done.stdout
    assert "depends" not in done.stdout
