"""Audio of a carrier that the firewall drops is no silence of the tools: every view says it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from guarded_switch import GuardedSwitch, guarded
from shared_host import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Host

pytestmark = pytest.mark.netns

RTP = b"\x80\x00" + bytes(170)
CARRIER, BESIDE = "203.0.113.10", "203.0.113.10"
PORT, IN_RANGE = 9000, 12000
CLOSED: dict[str, Any] = {
    "admin": {"networks": ["192.0.2.0/28"]},
    "trusted_peers": [{"name": "carrier-a", "signalling": [CARRIER, "2001:db8:5::a"]}],
    "media": {"ports": ["10000-49999"]},
}
MENDED = {**CLOSED, "media": {"ports": ["9000-49999"]}}
SENTENCE = "carrier-a: 600 packets to UDP 9000 dropped; media.ports is 10000-49999"
# The carrier's audio comes from an address that the policy does not have.
ELSEWHERE: dict[str, Any] = {
    **CLOSED,
    "trusted_peers": [
        {"name": "carrier-a", "signalling": ["203.0.113.200"], "media": ["203.0.113.64/27"]},
        {"name": "carrier-b", "signalling": ["198.51.100.200"]},
    ],
    "media": {"ports": ["10000-49999"], "sources": "peers"},
}
KNOWN = {
    **ELSEWHERE,
    "trusted_peers": [
        {
            "name": "carrier-a",
            "signalling": ["203.0.113.200"],
            "media": ["203.0.113.64/27", f"{BESIDE}/32"],
        }
    ],
}


class Switch(GuardedSwitch):
    def says(self, host: Host, port: int, count: int = 600, family: str = "ip") -> None:
        target = self.lab.switch.address_for(host, family)
        host.send_udp(target, port, [RTP] * count, source_port=30000)

    def data(self, *words: str) -> dict[str, Any]:
        done = self.host.sipfw(*words, "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def lines(self, *words: str) -> str:
        return self.host.sipfw(*words).stdout


@pytest.fixture(scope="module", params=BACKENDS)
def switch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Switch]:
    with guarded(Switch, request, tmp_path_factory, CLOSED) as made:
        yield made


def test_a_strangers_flood_leaves_no_note(switch: Switch) -> None:
    switch.host.apply(CLOSED)
    attacker = switch.lab.attacker
    target = switch.lab.switch.address_for(attacker)
    for port in range(20000, 24000):
        attacker.send_udp(target, port, [RTP])
    switch.says(attacker, PORT)
    done = switch.host.sipfw("verify", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["peers"]) == (0, []), found["problems"]
    entries = {item["name"]: item["entries"] for item in found["sets"]}
    assert {number for name, number in entries.items() if "lost" in name} == {0}


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_audio_outside_the_ports_of_the_policy(switch: Switch, family: str) -> None:
    switch.host.apply(MENDED)
    switch.host.apply(CLOSED)
    switch.says(switch.lab.carrier, PORT, family=family)
    done = switch.host.sipfw("verify")
    assert done.returncode == 2
    assert f"DEGRADED: {SENTENCE}\n" in done.stdout
    (peer,) = switch.data("verify")["peers"]
    (lost,) = peer["dropped"]
    assert (lost["packets"], lost["port"], lost["transport"]) == (600, PORT, "udp")
    assert lost["source"] == switch.lab.carrier.address(family)
    assert not lost["in_media_ports"]
    rows = switch.data("top", "--seconds", "0")["sources"]
    assert [(row["source"], row["packets"], row["layer"]) for row in rows] == [
        (lost["source"], 600, "host")
    ]
    assert "media.ports is 10000-49999" in rows[0]["reason"]
    assert SENTENCE in switch.lines("why", "carrier-a")
    assert 'sipfw_peer_lost_packets{peer="carrier-a"} 600' in switch.lines("metrics")
    switch.host.apply(MENDED)
    done = switch.host.sipfw("verify", "--brief")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "HEALTHY")


def test_an_apply_that_mends_nothing_forgets_nothing(switch: Switch) -> None:
    switch.host.apply(MENDED)
    switch.host.apply(CLOSED)
    switch.says(switch.lab.carrier, PORT)
    switch.host.apply({**CLOSED, "bans": {"duration": "2h"}})
    assert SENTENCE in switch.lines("verify", "--brief")
    switch.says(switch.lab.carrier, PORT, 5)
    assert SENTENCE.replace("600", "605") in switch.lines("verify", "--brief")


def test_tcp_to_a_closed_port_of_a_peer(switch: Switch) -> None:
    switch.host.apply(MENDED)
    target = switch.lab.switch.address_for(switch.lab.carrier)
    switch.lab.carrier.run(
        ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{target}/8088"], check=False
    )
    (peer,) = switch.data("verify")["peers"]
    assert {(item["transport"], item["port"]) for item in peer["dropped"]} == {("tcp", 8088)}
    assert peer["problems"][0].endswith("to TCP 8088 dropped; host.tcp_ports is empty")


def test_audio_from_an_address_that_is_no_media_network(switch: Switch) -> None:
    switch.host.apply(ELSEWHERE)
    switch.says(switch.lab.carrier, IN_RANGE)
    # Nobody beside a peer, and one whose SIP is trusted: neither leaves a note here.
    switch.says(switch.lab.office, IN_RANGE)
    sentence = (
        f"carrier-a: 600 packets to UDP 12000 dropped, from {BESIDE} beside its networks; "
        "media.sources is peers"
    )
    done = switch.host.sipfw("verify", "--brief")
    assert done.returncode == 2
    assert sentence in done.stdout
    (row,) = switch.data("top", "--seconds", "0", "--layer", "media")["sources"]
    assert (row["source"], row["packets"]) == (BESIDE, 600)
    assert sentence in switch.lines("why", "carrier-a")
    metrics = switch.lines("metrics")
    assert 'sipfw_peer_lost_packets{peer="carrier-a"} 600' in metrics
    assert 'sipfw_peer_lost_packets{peer="carrier-b"} 0' in metrics
    switch.host.apply(KNOWN)
    done = switch.host.sipfw("verify", "--brief")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "HEALTHY")


def test_without_ipset_the_counter_of_the_rule_is_left(switch: Switch) -> None:
    if switch.host.backend == "nftables":
        pytest.skip("has no use for ipset")
    switch.host.apply(CLOSED, "--no-ipset")
    try:
        before = switch.data("why", "carrier-a")["dropped_of_all"]
        assert switch.host.sipfw("verify", "--brief").returncode == 0
        switch.forget()
        assert switch.host.sipfw("verify", "--brief").returncode == 0
        switch.says(switch.lab.carrier, PORT)
        done = switch.host.sipfw("verify", "--brief")
        assert done.returncode == 2
        assert "trusted peers: 600 packets that no rule admits dropped in" in done.stdout
        told = switch.lines("why", "carrier-a")
        assert f"{before + 600:,} of all peers together, not counted by peer without ipset" in told
        assert switch.data("why", "carrier-a")["dropped_of_all"] == before + 600
        metrics = switch.lines("metrics")
        assert "sipfw_peer_lost_packets" not in metrics
        assert 'rule="lost.drop"' in metrics
    finally:
        switch.host.apply(CLOSED)


def test_what_is_asked_for_a_peer_and_for_its_address(switch: Switch) -> None:
    switch.host.apply(MENDED)
    switch.host.apply(CLOSED)
    switch.says(switch.lab.carrier, PORT, 7)
    found = switch.data("why", "carrier-a")["peer"]
    assert (found["dropped_packets"], found["signalling"][0]) == (7, f"{CARRIER}/32")
    told = switch.lines("why", CARRIER, "--to-port", str(PORT))
    for words in ("a datagram over udp", "a connection over tcp"):
        assert f"{words} to port 9000: dropped" in told
    assert f": udp port {PORT}, for another " in told
    done = switch.host.sipfw("why", "carrier-z")
    assert done.returncode == 2
    assert "'carrier-z' is not an address; write one such as" in done.stderr


def test_a_page_shows_what_a_peer_lost(switch: Switch) -> None:
    switch.host.apply(MENDED)
    switch.host.apply(CLOSED)
    switch.says(switch.lab.carrier, PORT, 11)
    page = switch.lines("report", "--html", "-", "--seconds", "0")
    assert "11 packets to UDP 9000 dropped; media.ports is 10000-49999" in page
