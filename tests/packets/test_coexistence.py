"""Foreign rules beside ours: never changed, and still asked after us."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lab import sip
from packets.cases import trusting

if TYPE_CHECKING:
    from lab import Family, Host, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

FOREIGN = """\
*raw
:foreign - [0:0]
-A PREROUTING -p udp -m udp --dport 5060 -m comment --comment "theirs" -j foreign
-A foreign -p udp -m udp --dport 9 -j DROP
-A foreign -m comment --comment "all of it"
COMMIT
*filter
:ufw-user - [0:0]
-A INPUT -p udp -m udp --dport 5060 -j ufw-user
-A ufw-user -p udp -m udp --dport 5060 -j ACCEPT
COMMIT
"""
NOT_THEIRS = re.compile(r"^#|sipfw:|^:SIP(FW)?_")
POLICY_COUNTERS = re.compile(r"(?<=ACCEPT )\[.*")


@dataclass(frozen=True, slots=True)
class Foreigner:
    """Somebody else's rules in the switch's namespace, and the tools that he uses."""

    lab: Lab
    tool: str

    def load(self) -> None:
        self.lab.switch.run([f"{self.tool}-restore"], FOREIGN)

    def lines(self) -> list[str]:
        """Return what is his with counters, without the built-in chains' own traffic counters."""
        save = [f"{self.tool}-save", "-c", "-t"]
        text = "".join(self.lab.switch.run([*save, table]).stdout for table in ("raw", "filter"))
        theirs = [line for line in text.splitlines() if not NOT_THEIRS.search(line)]
        return [POLICY_COUNTERS.sub("", line) for line in theirs]

    def counted(self, mark: str) -> int:
        (line,) = [line for line in self.lines() if mark in line]
        return int(line.removeprefix("[").partition(":")[0])


@pytest.fixture
def foreigner(
    request: pytest.FixtureRequest, lab: Lab, family: Family, firewall: Firewall
) -> Foreigner:
    assert firewall
    flavour = "nft" if "nft-flavour" in request.node.name else "legacy"
    foreigner = Foreigner(lab, f"{'iptables' if family == 'ip' else 'ip6tables'}-{flavour}")
    foreigner.load()
    return foreigner


def ask(lab: Lab, host: Host, family: Family) -> None:
    target = lab.switch.address_for(host, family)
    methods = ("OPTIONS", "REGISTER")
    host.send_udp(
        target, 5060, [sip.request(each, source=target, destination=target) for each in methods]
    )


def test_foreign_rules_and_counters_stay_byte_for_byte(
    foreigner: Foreigner, lab: Lab, firewall: Firewall, family: Family
) -> None:
    sink = lab.switch.udp_sink(5060)
    ask(lab, lab.attacker, family)
    assert sink.settle() == 2
    before = foreigner.lines()
    assert sum(line.startswith("[2:") for line in before) == 4
    firewall.load(trusting())
    assert firewall.counted("trusted.accept", family) == 0
    assert foreigner.lines() == before


def test_foreign_rules_behind_ours_see_what_we_pass(
    foreigner: Foreigner, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load(trusting())
    sink = lab.switch.udp_sink(5060)
    ask(lab, lab.carrier, family)
    ask(lab, lab.attacker, family)
    # All packets of the peer, and those of the stranger but the OPTIONS.
    assert sink.settle() == 3
    assert firewall.counted("trusted.accept", family) == 2
    assert firewall.counted("rate.accept", family) == 1
    assert foreigner.counted("-j foreign") == 3
    assert foreigner.counted("all of it") == 3


def test_a_foreign_rule_before_ours_has_the_first_word(
    foreigner: Foreigner, lab: Lab, firewall: Firewall, family: Family
) -> None:
    if firewall.own_table:
        pytest.skip("nothing that another table accepts keeps nftables from asking ours")
    firewall.load(trusting())
    lab.switch.run([foreigner.tool, "-t", "raw", "-I", "PREROUTING", "-p", "udp", "-j", "ACCEPT"])
    sink = lab.switch.udp_sink(5060)
    ask(lab, lab.attacker, family)
    assert sink.settle() == 2
    assert firewall.counted("entry.udp", family) == 0
