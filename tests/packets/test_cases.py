"""Every packet case on every backend in both families: what arrives, and which rule counted it."""

from __future__ import annotations

import contextlib
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest

from packets.cases import ATTACKS, Case, within
from packets.identity_cases import DENIED_CASES, TRUSTED_CASES
from packets.limit_cases import LIMIT_CASES
from packets.mixed_cases import MIXED_CASES
from packets.scanner_cases import ATTACK_CASES, LEGITIMATE_CASES, SCANNER_CASES, SIGNATURE_CASES

if TYPE_CHECKING:
    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

CASES = [
    *TRUSTED_CASES,
    *DENIED_CASES,
    *MIXED_CASES,
    *SCANNER_CASES,
    *SIGNATURE_CASES,
    *ATTACK_CASES,
    *LEGITIMATE_CASES,
    *LIMIT_CASES,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_packets_meet_their_rule(case: Case, lab: Lab, firewall: Firewall, family: Family) -> None:
    prove(case, lab, firewall, family)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in (*TRUSTED_CASES, *DENIED_CASES, *MIXED_CASES, *LIMIT_CASES)
        if not case.by_port
    ],
    ids=str,
)
def test_packets_meet_their_rule_without_ipset(
    case: Case, lab: Lab, setless_firewall: Firewall, family: Family
) -> None:
    prove(case, lab, setless_firewall, family)


@pytest.mark.parametrize("case", SCANNER_CASES, ids=str)
def test_packets_meet_their_rule_without_u32(
    case: Case, lab: Lab, bpf_firewall: Firewall, family: Family
) -> None:
    prove(case, lab, bpf_firewall, family)


def prove(case: Case, lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load(case.policy)
    own = lab.hosts[case.role].address(family)
    for name in case.members:
        firewall.add(name, own)
    listen = lab.switch.udp_sink if case.transport == "udp" else lab.switch.tcp_sink
    sink = listen(5060)
    send = _send_datagrams if case.transport == "udp" else _send_segments
    send(case, lab, family)
    delivered, counted = sink.settle(), firewall.counted(case.rule, family)
    assert within(delivered, case.delivered), f"{delivered} delivered"
    assert within(counted, case.counted), f"{case.rule} counted {counted}"
    for name in case.then_in:
        assert firewall.contains(name, own)


def _send_datagrams(case: Case, lab: Lab, family: Family) -> None:
    host = lab.hosts[case.role]
    target, own = lab.switch.address_for(host, family), host.address(family)
    messages = [build(own, target) for _ in range(case.repeat) for build in case.messages]
    if len(case.ports) == 1:
        host.send_udp(target, 5060, messages, source_port=case.ports[0])
        return
    for port, message in zip(cycle(case.ports), messages, strict=False):
        host.send_udp(target, 5060, message, source_port=port)


def _send_segments(case: Case, lab: Lab, family: Family) -> None:
    host = lab.hosts[case.role]
    target, own = lab.switch.address_for(host, family), host.address(family)
    # A refused SYN is one of the outcomes; the sink and the counters tell.
    with contextlib.suppress(TimeoutError):
        connection = host.tcp_connect(target, 5060, source_port=case.ports[0], timeout=0.3)
        for build in islice(cycle(case.messages), case.repeat * len(case.messages)):
            connection.send(build(own, target))


def test_every_recorded_attack_has_a_case() -> None:
    recorded = {path.stem for path in ATTACKS.glob("*.sip")}
    names = {case.name for case in CASES}
    assert not {name for name in recorded if f"recorded-{name}" not in names}


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
