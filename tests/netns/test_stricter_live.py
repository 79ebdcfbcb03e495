"""A host that shuts what the policy opens: it is said, the command opens it, and no more."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from shared_host import BACKENDS, SharedHost

from lab import Family, Lab, sip, unavailable_reason
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.policy.load import Request, load
from sipfw.render.script import script_text
from sipfw.ruleset.model import Layer, Priority
from sipfw.ruleset.rule import Accept, Done

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sipfw.ruleset.model import Ruleset

pytestmark = pytest.mark.netns

POLICY: Mapping[str, Any] = {
    "admin": {"networks": ["192.0.2.0/28"]},
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}],
    "signalling": {"udp": [5060], "tcp": []},
    "media": {"ports": ["12000-12999"]},
}
# What iptables-services ships, in both families, and the same in nft.
SERVICES = """\
*filter
:INPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p {icmp} -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p udp -m udp --dport 12000:12499 -j ACCEPT
-A INPUT -j REJECT
COMMIT
"""
NFT = """\
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        meta l4proto { icmp, ipv6-icmp } accept
        iif lo accept
        udp dport 12000-12499 accept
        jump more
    }
    chain more { counter reject; }
}
"""


@dataclass(frozen=True, slots=True)
class Stricter:
    """A lab whose switch has such rules."""

    lab: Lab
    host: SharedHost

    def arriving(self, family: Family) -> list[str]:
        """Return what arrives of an INVITE, an OPTIONS and RTP of both halves of the range."""
        found = []
        sinks = {port: self.lab.switch.udp_sink(port) for port in (5060, 12000, 12999, 7000)}
        for who, sender in self.lab.hosts.items():
            target = self.lab.switch.address_for(sender, family)
            own = sender.address(family)
            for method in ("INVITE", "OPTIONS"):
                text = sip.request(method, source=own, destination=target)
                sender.send_udp(target, 5060, text)
            for port in (12000, 12999, 7000):
                sender.send_udp(target, port, b"\x80" * 40)
            for port, sink in sinks.items():
                sink.settle()
                texts = [each.payload.split()[0] for each in sink.arrivals()]
                found += [f"{who} {port} {text[:7].decode('latin-1')}" for text in texts]
                sink.clear()
        for sink in sinks.values():
            sink.close()
        return [item.replace("\x80" * 7, "RTP") for item in found]

    def doctor(self) -> dict[str, Any]:
        done = self.host.sipfw("doctor", "--json")
        findings = {item["name"]: item for item in json.loads(done.stdout)["findings"]}
        found: dict[str, Any] = findings["stricter-rules"]
        return found


@pytest.fixture(params=BACKENDS)
def stricter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stricter]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker")) as lab:
        host = SharedHost(lab.switch, request.param, tmp_path)
        if request.param == "nftables":
            host.run("nft", "-f", "-", text=NFT)
        else:
            for command, icmp in (("iptables", "icmp"), ("ip6tables", "ipv6-icmp")):
                host.tool(f"{command}-restore", text=SERVICES.format(icmp=icmp))
        yield Stricter(lab, host)


SHUT = ["carrier 12000 RTP", "attacker 12000 RTP"]
OPEN = [
    *("carrier 5060 INVITE", "carrier 5060 OPTIONS", "carrier 12000 RTP", "carrier 12999 RTP"),
    *("attacker 5060 INVITE", "attacker 12000 RTP", "attacker 12999 RTP"),
]


def test_what_is_shut_is_named_and_the_command_opens_it(stricter: Stricter) -> None:
    host = stricter.host
    applied = host.sipfw(
        "apply", "--backend", host.backend, "--policy", host.policy(POLICY), "--yes"
    )
    assert applied.returncode == 0, applied.stderr
    for family in get_args(Family):
        assert stricter.arriving(family) == SHUT
    found = stricter.doctor()
    assert found["state"] == "problem"
    assert "SIP over UDP to 5060" in found["sentence"]
    assert "RTP to 12500-12999" in found["sentence"]
    assert "12000" not in found["sentence"].replace("12000-12499", "").replace("12000:12499", "")
    assert "SIP over UDP to 5060" in applied.stderr
    host.run("sh", "-c", found["fix"])
    assert stricter.doctor()["state"] == "ok"
    for family in get_args(Family):
        assert stricter.arriving(family) == OPEN
    # What is left is what the policy itself leaves out, and the peer has tried here.
    verified = json.loads(host.sipfw("verify", "--json").stdout)
    told = "packets to UDP 7000 dropped; media.ports is 12000-12999"
    assert [each.endswith(told) for each in verified["problems"]] == [True]


def as_before(ruleset: Ruleset) -> Ruleset:
    """Return what an older sipfw made of the policy: what it let in, it accepted."""
    chains = [
        replace(
            chain,
            rules=tuple(
                replace(rule, action=Accept()) if isinstance(rule.action, Done) else rule
                for rule in chain.rules
            ),
        )
        if (chain.layer, chain.priority) == (Layer.HOST, Priority.FILTER)
        else chain
        for chain in ruleset.chains
    ]
    return replace(ruleset, chains=tuple(chains))


def test_an_upgrade_cuts_nobody_off(stricter: Stricter) -> None:
    host = stricter.host
    policy = host.policy(POLICY)
    ruleset = compile_policy(load(Request(file=Path(policy))))
    host.kernel.load(as_before(ruleset))
    words = ("apply", "--backend", host.backend, "--policy", policy, "--yes")
    if host.backend == "nftables":
        # An accept of ours never went over another base chain.
        assert stricter.arriving("ip") == SHUT
        assert host.sipfw(*words).returncode == 0
        return
    assert stricter.arriving("ip") == OPEN
    before = host.tool("iptables-save")
    refused = host.sipfw(*words)
    assert refused.returncode == 4
    assert "the sipfw in force accepts it" in refused.stderr
    assert "-I INPUT 6 -p udp -m multiport --dports 12500:12999,5060 -j ACCEPT" in refused.stderr
    assert _rules(host.tool("iptables-save")) == _rules(before)
    assert stricter.arriving("ip") == OPEN
    forced = host.sipfw(*words, "--force")
    assert forced.returncode == 0
    assert "FORCED: " in forced.stderr
    assert stricter.arriving("ip") == SHUT


def test_the_script_says_it_too(stricter: Stricter) -> None:
    host = stricter.host
    if host.backend == "nftables":
        pytest.skip("the script is one of iptables")
    ruleset = compile_policy(load(Request(file=Path(host.policy(POLICY)))))
    path = host.folder / "firewall.sh"
    path.write_text(script_text(lower(ruleset, ipset=True), ruleset.sysctls))
    settings = {**host.env, "IPTABLES": host.backend, "SIPFW_ROOT": str(host.root)}

    def said() -> str:
        return host.node.run(["sh", str(path), "check"], env=settings).stderr

    assert said().count("-A INPUT -j REJECT --reject-with") == 2
    assert "sipfw opens nothing" in said()
    assert "still accepts" not in said()
    host.kernel.load(as_before(ruleset))
    assert "the firewall in force still accepts SIP itself" in said()
    for tool in ("iptables", "ip6tables"):
        host.tool(tool, "-D", "INPUT", "6")
    assert "drops" not in said()


def _rules(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A ")]
