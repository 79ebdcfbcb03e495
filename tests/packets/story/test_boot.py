"""An office that starts up while somebody forges logins in its name: is everybody in, in 32 s?"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from packets.registrar import needs
from packets.story import moves
from packets.story.account import Account
from packets.story.handset import Handset, Ledger
from packets.story.moves import Clock
from packets.story.switchboard import Switchboard, target
from packets.story.test_story import FORGED_PORTS, OFFICE, POLICY, PROVIDER
from packets.story.ways import Datagrams

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Lab
    from packets.evidence.wire import Wire
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio", "openssl")]

TWO_FORMS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
PHONES = 20
HOUR = {**POLICY, "learning": {"registered_ttl": "1h"}}


def log_in(phone: Handset, clock: Clock) -> float:
    """Register as often as it takes; return when it was in."""
    phone.idle(0.5 + random.random() * 0.5)
    while not phone.register(600):
        if clock.left <= 0:
            return 99.0
    return time.monotonic() - clock.started


@TWO_FORMS
def test_an_office_starts_up_beside_a_flood_in_its_name(
    lab: Lab, firewall: Firewall, wire: Wire, tmp_path: Path
) -> None:
    with Switchboard(lab, tmp_path, PROVIDER), ThreadPoolExecutor(PHONES + 1) as everybody:
        firewall.load(HOUR)
        ledger, clock = Ledger(), Clock(36)
        phones = []
        for number in range(PHONES):
            way = Datagrams(wire.udp(lab.office, (OFFICE, 7000 + number)), target(lab))
            account = Account(str(100 + number), OFFICE, target(lab))
            phones.append(Handset(account, way, ledger))
            phones[-1].patience = 32.0
        flood = everybody.submit(moves.spoofer, lab, OFFICE, OFFICE, FORGED_PORTS, clock)
        seconds = sorted(everybody.map(log_in, phones, [clock] * PHONES))
        clock.end()
        flood.result()
        print("\n" + ledger.table(), "\n".join(ledger.lost), seconds, sep="\n")  # noqa: T201
        assert ledger.lost == []
