"""A switch behind this host: its packets pass unjudged, and connections count before DNAT."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler import names
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower as lower_iptables
from sipfw.lower.nftables import lower as lower_nftables
from sipfw.policy.load import Request, load
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.lint import back_from_text, lint
from sipfw.ruleset.match import CtState, Interface
from sipfw.ruleset.model import Hook, Priority
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.packet import Packet, TcpFlag
from sipfw.simulate.state import Limit

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

POLICIES = {
    "usual": "trusted_peers: [{name: a, signalling: [203.0.113.10]}]",
    "endpoints": "trusted_peers: [{name: a, signalling: [203.0.113.10], source_ports: [5060]}]",
    "guarded": "admin: {networks: [192.0.2.0/28]}",
    "denied": "{limits: {unknown_sources: denied}, trusted_peers: [{name: a, signalling: ["
    "203.0.113.10]}]}",
    "no learning": "learning: {enabled: false}",
    "no limit on connections": "limits: {connlimit: null}",
}


def ruleset(tmp_path: Path, text: str, behind: str = "[docker0, 'br-*']") -> Ruleset:
    path = tmp_path / "policy.yaml"
    path.write_text(text + "\n")
    return compile_policy(load(Request(path, settings=(f"signalling.behind={behind}",))))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("ports", ["{}", "{udp: [], tcp: [], tls: [5061]}", "{tcp: []}"])
def test_every_policy_with_it_is_sound(policy: str, ports: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICIES[policy] + "\n")
    sets = [f"signalling={ports}", "signalling.behind=[docker0]"]
    found = compile_policy(load(Request(path, settings=tuple(sets))))
    assert lint(found) == []
    assert list(back_from_text(found)) == []
    lower_iptables(found)
    lower_iptables(found, ipset=False)
    lower_nftables(found)


@pytest.mark.parametrize(("behind", "table"), [("[docker0]", "mangle"), ("[]", "filter")])
def test_where_connections_are_counted(behind: str, table: str, tmp_path: Path) -> None:
    found = ruleset(tmp_path, POLICIES["usual"], behind)
    assert found.chain(names.CONNECTIONS).priority.value == table
    bases = {(chain.base.hook, chain.base.priority) for chain in found.chains if chain.base}
    assert ((Hook.PREROUTING, Priority.MANGLE) in bases) == (table == "mangle")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("interface", ["docker0", "br-0123456789ab", "eth0", "docker01", "br"])
def test_only_what_comes_through_it_passes(policy: str, interface: str, tmp_path: Path) -> None:
    """The source is one that is banned and over every limit."""
    packet = Packet(
        ip_address("198.51.100.7"),
        ip_address("203.0.113.77"),
        IpProto.UDP,
        5060,
        5060,
        in_interface=interface,
        payload=b"OPTIONS sip:x SIP/2.0\r\n\r\n",
        state=CtState.NEW,
        local=False,
    )
    found = ruleset(tmp_path, POLICIES[policy])
    walk = evaluate(found, packet, assume=Limit.EXCEEDED)
    assert walk.dropped == (interface not in {"docker0", "br-0123456789ab"})


@pytest.mark.parametrize(("interface", "dropped"), [("docker0", False), ("eth0", True)])
def test_only_connections_of_others_count(interface: str, dropped: bool, tmp_path: Path) -> None:
    packet = Packet(
        ip_address("198.51.100.7"),
        None,
        IpProto.TCP,
        40000,
        5060,
        flags=frozenset({TcpFlag.SYN}),
        in_interface=interface,
        payload=b"",
        state=CtState.NEW,
        local=False,
    )
    found = ruleset(tmp_path, "limits: {recent: null, per_source: null, hashlimit: null}")
    walk = evaluate(found, packet, assume=Limit.EXCEEDED)
    assert walk.dropped == dropped


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("br-*", "br-1", True),
        ("br-*", "br-", True),
        ("br-*", "br", False),
        ("docker0", "docker0", True),
        ("docker0", "docker01", False),
        ("docker0", "docker", False),
    ],
)
def test_a_star_stands_for_any_rest(pattern: str, name: str, fits: bool) -> None:
    assert Interface(pattern).fits(name) == fits
