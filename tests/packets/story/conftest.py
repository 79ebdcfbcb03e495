"""Fixtures of the story: sockets, and networks whose every address somebody answers for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from packets.evidence.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab

HOMES, PROVIDERS, FAR = "192.0.2.128/25", "203.0.113.128/25", "198.51.100.128/25"
# SIPVicious 0.3.3 forgets its option -b; what leaves this port has a source of its own.
SVWAR_PORT, SVWAR = 5098, "198.51.100.130"
TABLE = "98"


@pytest.fixture
def wire(lab: Lab) -> Iterator[Wire]:
    places = ((lab.office, HOMES), (lab.carrier, PROVIDERS), (lab.attacker, FAR))
    for host, network in places:
        host.run(["ip", "route", "replace", "local", network, "dev", "lo"])
    by_port = ["ipproto", "udp", "sport", str(SVWAR_PORT), "lookup", TABLE]
    way = ["default", "via", "198.51.100.1", "src", SVWAR, "table", TABLE]
    lab.attacker.run(["ip", "rule", "add", *by_port])
    lab.attacker.run(["ip", "route", "replace", *way])
    built = Wire()
    yield built
    built.close()
    lab.attacker.run(["ip", "rule", "delete", *by_port])
    for host, network in places:
        host.run(["ip", "route", "delete", "local", network, "dev", "lo"])
