"""Who makes the switch ask him something, by rows 11 and 12 together, may answer: what of it?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from packets.registrar import needs
from packets.story import moves
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


def be_asked(attacker: Attacker, port: int = 5090) -> None:
    """Let the switch relay a request to oneself."""
    way = attacker.datagrams(port)
    way.send(moves.within_dialog(attacker, f"sip:x@{attacker.address}:{port}"))
    found = way.receive(1.0)
    assert found is not None, "the switch relays nothing"
    assert found.startswith(b"BYE sip:x@")


@TWO_FORMS
def test_who_is_asked_forges_no_success(
    lab: Lab, firewall: Firewall, wire: Wire, tmp_path: Path
) -> None:
    with Switchboard(lab, tmp_path, PROVIDER):
        firewall.load(POLICY)
        cheat = Attacker(lab, wire, "198.51.100.150")
        be_asked(cheat)
        moves.forge_success(cheat)
        time.sleep(0.3)
        assert not firewall.contains("learned", cheat.address)


@TWO_FORMS
def test_who_is_asked_forges_no_refusals(
    lab: Lab, firewall: Firewall, wire: Wire, tmp_path: Path
) -> None:
    with Switchboard(lab, tmp_path, PROVIDER):
        firewall.load(POLICY)
        cheat = Attacker(lab, wire, "198.51.100.150")
        customer = ("192.0.2.150", 7000)
        be_asked(cheat)
        for _ in range(10):
            moves.forge_refusals(cheat, [customer])
        time.sleep(0.3)
        assert not firewall.contains("banned", customer[0])


@TWO_FORMS
def test_who_is_asked_guesses_no_more_than_others(
    lab: Lab, firewall: Firewall, wire: Wire, tmp_path: Path
) -> None:
    with Switchboard(lab, tmp_path, PROVIDER) as switch:
        firewall.load({**POLICY, "learning": {"registered_ttl": "1h"}})
        cheat = Attacker(lab, wire, "198.51.100.150")
        be_asked(cheat)
        started = time.monotonic()
        for port in range(6000, 6030):
            way = cheat.datagrams(port)
            challenge = cheat.challenge(way)
            if challenge is None:
                continue
            way.send(moves.stray_reply(cheat.switch, f"SIP/2.0/UDP {cheat.address}:{port}", 200))
            for _ in range(FAILURES + 10):
                time.sleep(0.005)
                way.send(cheat.guess(challenge))
        switch.settle()
        judged, seconds = len(switch.guesses(cheat.address)), time.monotonic() - started
        print(f"\n{judged} guesses of one without an account judged in {seconds:.0f} s")  # noqa: T201
        assert judged <= 8 * FAILURES
