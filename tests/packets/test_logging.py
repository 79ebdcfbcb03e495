"""What a logged drop tells its reader: the rule, the packet, and not too often."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from lab import sip
from lab.nflog import NflogReader
from packets.cases import trusting
from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.packet import Packet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Family, Host, Lab, Sink
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

GROUP, BURST = 4711, 5
SIP = 5060

# A line an hour, so that no token comes back while a test runs.
NFLOG = {"to": "nflog", "group": GROUP, "rate": "1/hour", "burst": BURST}


@pytest.fixture
def reader(lab: Lab) -> Iterator[NflogReader]:
    with NflogReader(lab.switch.namespace, GROUP) as opened:
        yield opened


@pytest.fixture
def sink(lab: Lab) -> Sink:
    return lab.switch.udp_sink(SIP)


def logging(*layers: str, **more: Any) -> dict[str, Any]:
    return {"logging": {**NFLOG, "layers": [*layers], **more}}


def send(lab: Lab, host: Host, family: Family, method: str, count: int = 1, **fields: Any) -> bytes:
    """Send the same request `count` times and return it."""
    target = lab.switch.address_for(host, family)
    message = sip.request(method, source=host.address(family), destination=target, **fields)
    host.send_udp(target, SIP, [message] * count, source_port=SIP)
    return message


def test_a_dropped_packet_is_told_of_with_the_id_of_its_rule(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, sink: Sink
) -> None:
    firewall.load(logging("scanner-block"))
    message = send(lab, lab.attacker, family, "OPTIONS")
    (entry,) = reader.settle()
    assert entry.prefix == "sipfw scanner.options-udp "
    assert entry.family == family
    assert ip_address(lab.attacker.address(family)).packed in entry.packet
    assert entry.packet.endswith(message)
    assert sink.settle() == 0
    for rule in ("scanner.options-udp", "log.scanner.options-udp.drop"):
        assert firewall.counted(rule, family) == 1


def test_a_flood_is_logged_up_to_the_burst_and_dropped_to_the_last(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, sink: Sink
) -> None:
    firewall.load(logging("scanner-block"))
    send(lab, lab.attacker, family, "OPTIONS", 100)
    assert BURST <= len(reader.settle()) <= BURST + 1
    assert sink.settle() == 0
    assert firewall.counted("scanner.options-udp", family) == 100
    assert firewall.counted("log.scanner.options-udp.drop", family) == 100
    assert BURST <= firewall.counted("log.scanner.options-udp.note", family) <= BURST + 1


def test_a_flood_against_one_rule_hides_no_other(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader
) -> None:
    firewall.load(logging("scanner-block"))
    send(lab, lab.attacker, family, "OPTIONS", 100)
    send(lab, lab.attacker, family, "REGISTER", user_agent="sipvicious")
    assert reader.settle()[-1].prefix == "sipfw scanner.ua.sipvicious "


def test_the_rate_lets_lines_follow_the_burst(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader
) -> None:
    firewall.load(logging("scanner-block", rate="20/second", burst=1))
    target = lab.switch.address_for(lab.attacker, family)
    lab.attacker.send_udp(target, SIP, [b"OPTIONS x"] * 6, source_port=SIP, gap=0.1)
    assert len(reader.settle()) == 6


def test_a_search_for_a_text_has_its_own_short_prefix(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, sink: Sink
) -> None:
    firewall.load(logging("scanner-block"))
    send(lab, lab.attacker, family, "REGISTER", user_agent="friendly-scanner")
    send(lab, lab.attacker, family, "REGISTER", user_agent="friendly-request")
    assert [entry.prefix for entry in reader.settle()] == [
        "sipfw scanner.ua.frie~cf68e1 ",
        "sipfw scanner.ua.frie~a8a087 ",
    ]
    assert sink.settle() == 0


def test_nothing_is_logged_unless_somebody_wants_it(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, sink: Sink
) -> None:
    firewall.load({})
    send(lab, lab.attacker, family, "OPTIONS", 3)
    assert sink.settle() == 0
    assert reader.settle() == []
    assert not any(rule.startswith("log.") for rule in firewall.counts(family))


def test_only_the_named_layers_are_logged(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, sink: Sink
) -> None:
    firewall.load(logging("banned"))
    send(lab, lab.attacker, family, "OPTIONS", 3)
    send(lab, lab.attacker, family, "REGISTER")
    assert sink.settle() == 1
    assert reader.settle() == []
    firewall.add("banned", lab.attacker.address(family))
    send(lab, lab.attacker, family, "INVITE")
    assert [entry.prefix for entry in reader.settle()] == ["sipfw banned.drop "]


def test_the_cap_of_a_peer_is_asked_once_for_each_call(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, sink: Sink
) -> None:
    """The bucket must give a token for a call, not one for the call and one for its log."""
    tiers = {"small": {"calls_per_second": 5, "concurrent": 5, "longest_call": 60}, "enforce": True}
    firewall.load({**trusting(tier="small"), "tiers": tiers, **logging("trusted")})
    send(lab, lab.carrier, family, "INVITE", 30)
    delivered = sink.settle()
    assert 10 <= delivered <= 12
    assert firewall.counted("log.trusted.tier-small.drop", family) == 30 - delivered
    assert {entry.prefix for entry in reader.settle()} == {"sipfw trusted.tier-small "}


def test_the_walk_says_what_the_kernel_does(
    lab: Lab, firewall: Firewall, family: Family, reader: NflogReader, tmp_path: Path
) -> None:
    policy = logging("scanner-block")
    firewall.load(policy)
    message = send(lab, lab.attacker, family, "OPTIONS")
    (entry,) = reader.settle()
    file = tmp_path / "policy.yaml"
    file.write_text(f"logging: {policy['logging']}")
    packet = Packet(
        ip_address(lab.attacker.address(family)),
        ip_address(lab.switch.address_for(lab.attacker, family)),
        IpProto.UDP,
        SIP,
        SIP,
        payload=message,
        in_interface="attacker",
        state=CtState.NEW,
    )
    trace = evaluate(compile_policy(load(Request(file))), packet)
    assert trace.dropped
    assert trace.decider is not None
    assert trace.decider.id == "log.scanner.options-udp.drop"
    assert trace.changes == (f"logs it as '{entry.prefix.strip()}'",)
    assert not any(item.rule_id.startswith("log.") for item in trace.assumptions)
    ours = {step.rule_id for step in trace.steps if step.matched and "." in step.rule_id}
    assert all(firewall.counted(rule, family) == 1 for rule in ours)
