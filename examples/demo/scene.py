"""The place of the demo: a switch that answers like a registrar, a carrier, an attacker.

Knows the network and how to count; knows no attack and no firewall.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from lab import sip

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Arrival, Lab, Sink

SIP_PORT = 5060
SWITCH_ADDRESSES = 20
ACCOUNTS = ("1000", "1001")
RIGHT = 'Digest username="1000", response="right"'
WRONG_NUMBER = "404404"

# A switch with two accounts, whose passwords no attack here guesses.
SWITCH_BEHAVIOUR = {
    "mode": "registrar",
    "good": ['response="right"'],
    "challenge": ["SUBSCRIBE"],
    "users": list(ACCOUNTS),
    "refuse": 401,
    "others": {"INVITE": [100, 180, 200], "MESSAGE": 404, "NOTIFY": 405, "*": 200},
}


class DemoError(Exception):
    """The demo could not be carried out, so it shows nothing."""


@dataclass
class Scene:
    """The running laboratory and what was recorded on the unprotected switch."""

    lab: Lab
    scratch: Path
    signalling: Sink
    recorded: dict[str, list[Arrival]] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Return the address under which the attacker knows the switch."""
        return self.lab.switch.address_for(self.lab.attacker)

    def sent_by_attacker(self) -> int:
        """Return what the attacker's own kernel counted, whatever became of it."""
        return self.lab.attacker.counters()["UdpOutDatagrams"]

    def hears_the_carrier(self) -> bool:
        """Tell whether a message of the carrier reaches the switch."""
        heard = self.signalling.settle()
        target = self.lab.switch.address_for(self.lab.carrier)
        question = sip.request("OPTIONS", source=self.lab.carrier.address4, destination=target)
        self.lab.carrier.send_udp(target, SIP_PORT, [question])
        return self.signalling.settle() > heard

    def attack_from(self, address: str) -> None:
        """Make this the attacker's address, also for tools whose option to bind is inert."""
        network = ip_network(f"{self.target}/24", strict=False)
        route = ["proto", "kernel", "scope", "link", "src", address]
        self.lab.attacker.run(["ip", "route", "replace", str(network), "dev", "eth0", *route])


def tool(name: str) -> str:
    """Return the path of an attack or test tool; upstream and Debian name them differently."""
    found = shutil.which(name) or shutil.which(f"sipvicious_{name}")
    if found is None:
        raise DemoError(f"{name} is not installed; on Debian: apt install sipvicious sip-tester")
    return found


def prepare(lab: Lab, scratch: Path) -> Scene:
    """Give the switch more addresses to be found at, and start its SIP service."""
    first = ip_address(lab.switch.address_for(lab.attacker))
    for number in range(1, SWITCH_ADDRESSES):
        address = f"{first + number}/24"
        lab.switch.run(["ip", "address", "add", address, "dev", lab.attacker.role])
    return Scene(lab, scratch, lab.switch.udp_sink(SIP_PORT, SWITCH_BEHAVIOUR))
