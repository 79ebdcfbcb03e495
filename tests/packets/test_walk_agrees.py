"""The walk gives every packet case the verdict and the rule that the kernel gives it.

The kernel meets the same table in `test_cases`, so nothing is loaded here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import yaml

from lab.laboratory import LINKS, SWITCH_NUMBER
from packets.mixed_cases import MIXED_CASES
from packets.test_cases import CASES
from sipfw.compiler.pipeline import compile_policy
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState
from sipfw.ruleset.rule import Accept, Done, Drop, Reset
from sipfw.ruleset.source import key_address, prefix_in, source_text
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import Elements, Limit, LiveState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lab import Family
    from packets.cases import Case
    from sipfw.ruleset.model import Ruleset
    from sipfw.simulate.trace import Trace

SIP = 5060


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policies")


@cache
def compiled(text: str, folder: Path) -> Ruleset:
    file = folder / "policy.yaml"
    file.write_text(text)
    return compile_policy(load(Request(file=file)))


@pytest.mark.parametrize("case", MIXED_CASES, ids=str)
def test_mixed_cases_are_of_one_address_and_nine_networks(case: Case, folder: Path) -> None:
    """Neighbouring networks would be joined, and fewer written out."""
    sets = compiled(yaml.safe_dump(dict(case.policy)), folder).sets
    peers = [item for item in sets if item.name in {"trusted", "trusted-udp", "trusted-ports"}]
    networks = {network for item in peers for network in item.networks}
    networks |= {endpoint.network for item in peers for endpoint in item.endpoints}
    for version, address in ((4, 32), (6, 128)):
        lengths = [each.prefixlen for each in networks if each.version == version]
        assert (len(lengths), lengths.count(address)) == (10, 1)


def packets(case: Case, family: Family) -> list[Packet]:
    """Return one packet for each message of the case, over TCP with the SYN before them."""
    link = LINKS[case.role]
    own, switch = link.address(link.host_number, family), link.address(SWITCH_NUMBER, family)
    packet = Packet(
        ip_address(own),
        ip_address(switch),
        IpProto(case.transport),
        case.ports[0],
        SIP,
        in_interface=case.role,
        state=CtState.NEW,
    )
    messages = [replace(packet, payload=build(own, switch)) for build in case.messages]
    if case.transport == "udp":
        return messages
    segment = {"flags": frozenset({TcpFlag.ACK}), "state": CtState.ESTABLISHED}
    return [
        replace(packet, flags=frozenset({TcpFlag.SYN}), payload=b""),
        *(replace(message, **segment) for message in messages),
    ]


def walked(
    case: Case, family: Family, folder: Path, limits: Mapping[str, Limit] | None = None
) -> list[Trace]:
    ruleset = compiled(yaml.safe_dump(dict(case.policy)), folder)
    sent = packets(case, family)
    elements: dict[str, Elements] = {item.name: {} for item in ruleset.sets if item.dynamic}
    elements |= {
        name: {key_address(sent[0].source, prefix_in(ruleset, name)): None} for name in case.members
    }
    return [evaluate(ruleset, packet, LiveState(elements, limits or {})) for packet in sent]


def by_the_rule(case: Case, traces: list[Trace]) -> list[Trace]:
    """Return the walks that the case's rule decided, or led to what decided them."""
    found = []
    for trace in traces:
        step = next((s for s in trace.steps if s.matched and s.rule_id == case.rule), None)
        if step is None:
            continue
        if isinstance(step.rule.action, Drop | Reset):
            assert trace.decider is step.rule
        if isinstance(step.rule.action, Accept | Done):
            assert step.rule in trace.deciders
        found.append(trace)
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_walk_agrees_with_the_case_table(case: Case, family: Family, folder: Path) -> None:
    sent = case.repeat * len(case.messages)
    most = case.delivered if isinstance(case.delivered, int) else case.delivered[1]
    traces = walked(case, family, folder)
    if most == 0:
        assert any(trace.dropped for trace in by_the_rule(case, traces))
    elif most == sent:
        assert not any(trace.dropped for trace in traces)
        assert by_the_rule(case, traces)
    else:
        # The limit lets the first packets through and stops the rest.
        assert not any(trace.dropped for trace in traces)
        assert by_the_rule(case, traces) == []
        asked = {item.rule_id for trace in traces for item in trace.assumptions}
        # What stands behind a limit is met where that one is exceeded.
        beyond = [
            trace
            for rule_id in ({case.rule} & asked or asked)
            for trace in by_the_rule(case, walked(case, family, folder, {rule_id: Limit.EXCEEDED}))
        ]
        assert any(trace.dropped for trace in beyond)
        traces = beyond
    for name in case.then_in:
        ruleset = compiled(yaml.safe_dump(dict(case.policy)), folder)
        source = packets(case, family)[0].source
        change = f"adds {source_text(source, prefix_in(ruleset, name))} to {name}"
        assert any(change in trace.changes for trace in traces)
