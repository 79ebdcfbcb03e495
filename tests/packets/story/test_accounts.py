"""One good account, many ports: how many wrong passwords are judged of one address in a minute?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from packets.registrar import needs
from packets.story.account import Account
from packets.story.handset import Handset, Ledger
from packets.story.moves import Attacker
from packets.story.switchboard import Switchboard
from packets.story.test_story import FAILURES, POLICY, PROVIDER

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Lab
    from packets.evidence.wire import Wire
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio", "openssl")]

TWO_FORMS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
HOUR = {**POLICY, "learning": {"registered_ttl": "1h"}}


@TWO_FORMS
def test_an_account_registers_sixty_ports_and_guesses_from_each(
    lab: Lab, firewall: Firewall, wire: Wire, tmp_path: Path
) -> None:
    with Switchboard(lab, tmp_path, PROVIDER) as switch:
        firewall.load(HOUR)
        bad = Attacker(lab, wire, "198.51.100.150")
        own = Account("139", bad.address, bad.switch)
        ways = [bad.datagrams(6000 + n) for n in range(60)]
        registered = sum(Handset(own, way, Ledger()).register(600) for way in ways)
        challenge = bad.challenge(ways[0])
        assert challenge is not None
        started = time.monotonic()
        for _ in range(FAILURES + 10):
            for way in ways:
                way.send(bad.guess(challenge))
                time.sleep(0.004)
        switch.settle()
        judged = len(switch.guesses(bad.address))
        seconds = time.monotonic() - started
        banned = firewall.contains("banned", bad.address)
        print(f"\n{registered} ports, {judged} judged in {seconds:.0f} s, banned {banned}")  # noqa: T201
        assert judged <= 8 * FAILURES


@TWO_FORMS
@pytest.mark.parametrize("known", [False, True], ids=["stranger", "insider"])
def test_all_guesses_come_at_once(
    known: bool, lab: Lab, firewall: Firewall, wire: Wire, tmp_path: Path
) -> None:
    with Switchboard(lab, tmp_path, PROVIDER) as switch:
        firewall.load(HOUR)
        bad = Attacker(lab, wire, "198.51.100.150")
        own = Account("139", bad.address, bad.switch)
        ways = [bad.datagrams(6000 + n) for n in range(10)]
        if known:
            assert Handset(own, ways[0], Ledger()).register(600)
        challenge = bad.challenge(ways[0])
        assert challenge is not None
        guesses = [bad.guess(challenge) for _ in range(1000)]
        for number, guess in enumerate(guesses):
            ways[number % len(ways)].send(guess)
        switch.settle()
        judged = len(switch.guesses(bad.address))
        print(f"\n{judged} of 1000 at once judged")  # noqa: T201
        assert judged <= 8 * FAILURES
