"""Rules of others, packets, and what `why`, `verify`, `doctor` and `diff` say: they all agree."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from foreign_cases import GIFTS, IPTABLES, NFT, Case, Gift, Kind
from namespace_thread import thread_inside
from shared_host import BACKENDS, SharedHost
from tampering_hands import IptablesHand, NftHand

from lab import Lab, sip, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tampering_hands import Hand

    from lab.handles import Sink

pytestmark = pytest.mark.netns

PEER, ADMIN, STRANGER = "203.0.113.10", "192.0.2.100", "198.51.100.66"
POLICY: Mapping[str, Any] = {
    "admin": {"networks": ["192.0.2.0/24"]},
    "trusted_peers": [{"name": "carrier", "signalling": [PEER]}],
    "signalling": {"udp": [5060], "tcp": []},
    "media": {"ports": ["12000-12999"]},
    # The listings of other hosts would take most of the time.
    "scanners": {"signatures": False},
    "conntrack": {"max": None},
}
QUESTIONS = {
    "sip": (PEER, "--method", "INVITE"),
    "media": (PEER, "--to-port", "12000", "--transport", "udp"),
    "ssh": (ADMIN, "--to-port", "22", "--transport", "tcp"),
}


@dataclass
class Scene:
    """A switch with sipfw, its carrier and its admin."""

    lab: Lab
    host: SharedHost
    hand: Hand
    sip: Sink
    media: Sink
    closed: Sink
    policy: str
    port: int = 20000

    def load(self, commands: str) -> None:
        words = re.sub(r"\bT -", f"iptables-{self.host.flavour} -w -", commands)
        self.host.run("sh", "-ec", words)

    def reaches(self, port: int) -> bool:
        """Tell whether a stranger's OPTIONS to a port comes to a program."""
        attacker = self.lab.attacker
        target = self.lab.switch.address_for(attacker)
        attacker.send_udp(target, port, sip.request("OPTIONS", source=STRANGER, destination=target))
        sinks = (self.sip, self.closed)
        arrived = sum(sink.settle(quiet=0.05) for sink in sinks)
        for sink in sinks:
            sink.clear()
        return arrived > 0

    def missing(self) -> frozenset[str]:
        """Send SIP, RTP and a connection for ssh; return what did not arrive."""
        switch, carrier, office = self.lab.switch, self.lab.carrier, self.lab.office
        target = switch.address_for(carrier)
        self.port += 1
        asked = [sip.request("INVITE", source=PEER, destination=target)]
        answers = carrier.send_udp(target, 5060, asked, source_port=self.port, replies=0.15)
        carrier.send_udp(target, 12000, [b"\x80" * 40], source_port=self.port + 20000)
        found = set()
        if not self.sip.settle(quiet=0.02):
            found.add("sip")
        if not answers:
            found.add("answers")
        if not self.media.settle(quiet=0.02):
            found.add("media")
        try:
            office.tcp_connect(switch.address_for(office), 22, timeout=0.2).close()
        except (TimeoutError, ConnectionRefusedError):
            found.add("ssh")
        self.sip.clear()
        self.media.clear()
        return frozenset(found)

    def json(self, *words: str) -> tuple[int, Any]:
        done = self.host.sipfw(*words, "--json")
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def doctor(self) -> dict[str, Any]:
        _, said = self.json("doctor")
        found: dict[str, Any] = {item["name"]: item for item in said["findings"]}
        result: dict[str, Any] = found["stricter-rules"]
        return result

    def why(self, service: str) -> dict[str, Any]:
        """Return the answer about the packet that decides: over TCP the one that opens."""
        _, said = self.json("why", *QUESTIONS[service])
        found: dict[str, Any] = said["answers"][0]
        return found

    def undo(self) -> None:
        self.hand.undo()
        self.host.tool("iptables", "-P", "INPUT", "ACCEPT")
        self.host.run("conntrack", "-F")


@pytest.fixture(scope="module")
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with (
        Lab(hosts=("carrier", "attacker", "office")) as lab,
        thread_inside(lab.switch.namespace) as inside,
    ):
        host = SharedHost(lab.switch, request.param, tmp_path_factory.mktemp("foreign"))
        sinks = [lab.switch.udp_sink(5060, "echo-status"), lab.switch.udp_sink(12000)]
        sinks.append(lab.switch.udp_sink(7777))
        lab.switch.tcp_sink(22)
        host.apply(POLICY, "--yes")
        hand = (NftHand if request.param == "nftables" else IptablesHand)(host, inside)
        yield Scene(lab, host, hand, *sinks, host.policy(POLICY))


# Rules of nft beside legacy iptables are split over two packet filters, and that alone degrades.
# What a rule of iptables does is the same everywhere, so each is asked in one place or two.
LEGACY, FLAVOUR, TABLE = BACKENDS
CASES = [(LEGACY, case) for case in IPTABLES]
CASES += [(FLAVOUR, case) for case in (*IPTABLES[::4], *NFT[1::4])]
CASES += [(TABLE, case) for case in (*IPTABLES[2::4], *NFT)]


@pytest.mark.parametrize(("scene", "case"), CASES, indirect=["scene"], ids=str)
def test_all_say_what_arrives(scene: Scene, case: Case) -> None:
    scene.load(case.commands)
    try:
        missing = scene.missing()
        assert missing == case.lost
        code, verified = scene.json("verify")
        words = ("--backend", scene.host.backend, "--policy", scene.policy)
        differs, diff = scene.json("diff", *words)
        takes = case.kind is Kind.TAKES
        assert (code, bool(verified["problems"])) == ((2, True) if takes else (0, False)), verified
        assert (differs, bool(diff["others"])) == ((1, True) if takes else (0, False)), diff
        assert diff["same"]
        noted = case.kind in {Kind.STRANGERS, Kind.UNSURE}
        if not takes:
            assert bool(verified["notes"]) is noted, verified["notes"]
            assert diff["notes"] == verified["notes"]
        for service in ("sip", "media", "ssh"):
            _agrees(scene.why(service), service, case)
        found = scene.doctor()
        state = "problem" if takes else "warning" if noted else "ok"
        assert found["state"] == state, found
        if takes or case.kind is Kind.UNSURE:
            scene.host.run("sh", "-ec", found["fix"])
            assert scene.missing() == frozenset()
            # What strangers alone lose besides stays, if a peer's own addresses are let in.
            assert scene.doctor()["state"] in ({"ok", "warning"} if takes else {"ok"})
            code, verified = scene.json("verify")
            # What the rule made of a trusted peer's packets is told for a while after.
            lost = [each for each in verified["problems"] if "dropped; media.ports is" in each]
            assert (code, verified["problems"]) == (2 if lost else 0, lost), found["fix"]
            assert not lost or case.name.endswith("redirect")
    finally:
        scene.undo()


@pytest.mark.parametrize("scene", BACKENDS, indirect=True)
@pytest.mark.parametrize("gift", GIFTS, ids=str)
def test_all_say_what_strangers_gain(scene: Scene, gift: Gift) -> None:
    if gift.nft and scene.host.backend == LEGACY:
        pytest.skip("rules are split over two packet filters then, and that alone degrades")
    scene.load(gift.commands)
    try:
        gained = scene.reaches(gift.port)
        assert gained is (scene.host.backend != TABLE or gift.everywhere)
        code, verified = scene.json("verify")
        assert (code > 0, bool(verified["problems"])) == (gained, gained), verified
        words = ("--backend", scene.host.backend, "--policy", scene.policy)
        assert scene.json("diff", *words)[0] == int(gained)
        asked = ("why", STRANGER, "--to-port", str(gift.port), "--transport", "udp")
        answer = scene.json(*asked, "--method", "OPTIONS")[1]["answers"][0]
        assert (answer["verdict"] == "dropped") is not gained, answer
        _, said = scene.json("doctor")
        found = {item["name"]: item for item in said["findings"]}[gift.check]
        assert (found["state"] == "problem") is gained, found
        if gained:
            if found["fix"].startswith("sipfw "):
                scene.host.must(*found["fix"].split()[1:])
            else:
                scene.host.run("sh", "-ec", found["fix"])
            assert not scene.reaches(gift.port)
            assert scene.json("verify")[0] == 0
    finally:
        scene.undo()


def _agrees(answer: dict[str, Any], service: str, case: Case) -> None:
    """Compare what `why` says of a service with what arrived of it."""
    others = answer["others"]
    if case.kind is Kind.UNSURE:
        doubtful = bool(others["possible"] or others["answers_possible"])
        assert answer["verdict"] in {"passes", "depends"}, answer
        assert doubtful or service not in case.lost, answer
        return
    assert (answer["verdict"] == "dropped") is (service in case.lost), answer
    if service == "sip":
        assert bool(others["answers"]) is (case.lost == {"answers"}), answer
    if service in case.lost:
        end = others["end"]
        assert end is not None, answer
        assert end["rule"] or "policy" in end["place"]
        assert end["mend"], end
