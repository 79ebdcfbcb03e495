"""A host that is stricter than the policy stays so: what gets in is what both firewalls let in.

The same rows on each backend and through the script, with and without admin networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import pytest

from lab import Family, sip
from packets.cases import CARRIER, CARRIER_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lab import Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

UNGUARDED: Mapping[str, Any] = {"trusted_peers": [CARRIER]}
GUARDED: Mapping[str, Any] = {
    **UNGUARDED,
    "admin": {"networks": ["192.0.2.0/24", "2001:db8:2::/64"]},
}
SIP_PORT, RTP_PORT, WEB_PORT, SSH_PORT = 5060, 12000, 8443, 22
UDP = [("INVITE", SIP_PORT), ("OPTIONS", SIP_PORT), ("RTP", RTP_PORT)]
TCP = [("web", WEB_PORT), ("ssh", SSH_PORT)]
ALL = {f"{who} {what}" for who in ("carrier", "attacker", "office") for what, _ in (*UDP, *TCP)}
SIP_AND_RTP = {
    f"{who} {what}" for who in ("carrier", "attacker", "office") for what in ("INVITE", "RTP")
}

# What ours lets in: no OPTIONS of strangers; with admin networks SIP, RTP and the admins' ssh.
OURS = {
    "unguarded": ALL - {"attacker OPTIONS", "office OPTIONS"},
    "guarded": SIP_AND_RTP | {"carrier OPTIONS", "office ssh"},
}


@dataclass(frozen=True, slots=True)
class Theirs:
    """Rules of somebody else: a line is the words of iptables, and those of nft."""

    lets_in: set[str]
    rules: Sequence[tuple[str, str]] = ()
    drops: bool = True


CARRIER4, CARRIER6 = CARRIER_SOURCES
FROM_CARRIER4 = (f"-s {CARRIER4} -j ACCEPT", f"ip saddr {CARRIER4} accept")
FROM_CARRIER6 = (f"-s {CARRIER6} -j ACCEPT", f"ip6 saddr {CARRIER6} accept")
OPEN_SIP = ("-p udp --dport 5060 -j ACCEPT", "udp dport 5060 accept")
OPEN_RTP = ("-p udp --dport 10000:20000 -j ACCEPT", "udp dport 10000-20000 accept")
OPEN_SSH = ("-p tcp --dport 22 -j ACCEPT", "tcp dport 22 accept")
OPEN_WEB = ("-p tcp --dport 8443 -j ACCEPT", "tcp dport 8443 accept")
THEIRS = {
    "policy DROP": Theirs(set()),
    "own allow-list": Theirs(
        {f"carrier {what}" for what, _ in (*UDP, *TCP)} | {"attacker web", "office web"},
        (FROM_CARRIER4, FROM_CARRIER6, OPEN_WEB),
    ),
    "final REJECT": Theirs(
        SIP_AND_RTP
        | {
            f"{who} {what}"
            for who in ("carrier", "attacker", "office")
            for what in ("OPTIONS", "ssh")
        },
        (OPEN_SIP, OPEN_RTP, OPEN_SSH, ("-j REJECT", "reject")),
        drops=False,
    ),
}


class Stricter:
    """Loads such rules with the tools of their kind, before ours or behind."""

    def __init__(self, lab: Lab, kind: str, theirs: Theirs) -> None:
        self._lab = lab
        self._kind = kind
        self._theirs = theirs

    def load(self) -> None:
        if self._kind == "nftables":
            self._lab.switch.run(["nft", "-f", "-"], self._nft())
            return
        for family in get_args(Family):
            self._tool(family, self._iptables(family))

    def remove(self) -> None:
        if self._kind != "nftables":
            for family in get_args(Family):
                self._tool(family, "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")

    def _tool(self, family: Family, text: str) -> None:
        tool = "iptables" if family == "ip" else "ip6tables"
        flavour = "nft" if self._kind == "nft-flavour" else "legacy"
        self._lab.switch.run([f"{tool}-{flavour}-restore", "--noflush"], text)

    def _iptables(self, family: Family) -> str:
        icmp = "icmp" if family == "ip" else "ipv6-icmp"
        rules = [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-p {icmp} -j ACCEPT",
            *(words for words, _ in self._theirs.rules),
        ]
        wrong = CARRIER6 if family == "ip" else CARRIER4
        lines = "".join(f"-A INPUT {rule}\n" for rule in rules if wrong not in rule)
        policy = "DROP" if self._theirs.drops else "ACCEPT"
        return f"*filter\n:INPUT {policy} [0:0]\n{lines}COMMIT\n"

    def _nft(self) -> str:
        policy = "drop" if self._theirs.drops else "accept"
        rules = [
            "ct state established,related accept",
            "meta l4proto { icmp, ipv6-icmp } accept",
            *(words for _, words in self._theirs.rules),
        ]
        head = f"type filter hook input priority filter; policy {policy};"
        return f"table inet theirs {{ chain input {{ {head}\n" + "\n".join(rules) + "\n}\n}\n"


@pytest.fixture(params=THEIRS)
def theirs(request: pytest.FixtureRequest, lab: Lab, firewall: Firewall) -> Iterator[Stricter]:
    assert firewall
    callspec = request.node.callspec
    built = Stricter(lab, callspec.params["firewall"], THEIRS[request.param])
    yield built
    built.remove()


@pytest.mark.parametrize("policy", OURS)
def test_what_gets_in_is_what_both_let_in(
    policy: str, lab: Lab, firewall: Firewall, theirs: Stricter, request: pytest.FixtureRequest
) -> None:
    lets_in = THEIRS[request.node.callspec.params["theirs"]].lets_in
    theirs.load()
    firewall.load(UNGUARDED if policy == "unguarded" else GUARDED)
    for family in get_args(Family):
        assert arriving(lab, family) == lets_in & OURS[policy], family


def arriving(lab: Lab, family: Family) -> set[str]:
    """Send one packet of each kind from everybody and return which came."""
    sinks = {port: lab.switch.udp_sink(port) for port in (SIP_PORT, RTP_PORT)}
    listening = [lab.switch.tcp_sink(port) for port in (WEB_PORT, SSH_PORT)]
    found = set()
    for who, host in lab.hosts.items():
        target = lab.switch.address_for(host, family)
        for what, port in UDP:
            text = b"\x80" * 40
            if port == SIP_PORT:
                text = sip.request(what, source=host.address(family), destination=target)
            host.send_udp(target, port, text)
        for what, port in TCP:
            try:
                host.tcp_connect(target, port, timeout=0.15).close()
            except OSError:
                continue
            found.add(f"{who} {what}")
    names = {host.address(family): who for who, host in lab.hosts.items()}
    for port, sink in sinks.items():
        sink.settle()
        for each in sink.arrivals():
            what = each.payload.split()[0].decode() if port == SIP_PORT else "RTP"
            found.add(f"{names[each.source]} {what}")
    for each in (*sinks.values(), *listening):
        each.close()
    return found
