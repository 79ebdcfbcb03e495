"""What is remembered for a flood: who has logged in before, and who was seen a moment ago."""

from __future__ import annotations

import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from lab.flood.people import all_in
from lab.flood.town import Flood
from packets.cases import trusting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Lab
    from lab.flood.town import Town
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

RATE = 8000
BURSTS_SPENT = 1.2
# What a login teaches is forgotten after two seconds, except that there was one.
FORGETFUL: Mapping[str, Any] = {
    "profile": "wholesale",
    **trusting(),
    "learning": {"registered_ttl": "2s"},
}
IN_TWO_FORMS = pytest.mark.parametrize(
    ("firewall", "family"), [("legacy", "ip"), ("nftables", "ip6")], indirect=True
)


@IN_TWO_FORMS
def test_who_has_logged_in_before_is_no_stranger_to_a_flood(firewall: Firewall, town: Town) -> None:
    firewall.load(FORGETFUL)
    before = town.newcomer()
    before.start(time.monotonic())
    town.clock.run(time.monotonic() + 5, lambda: all_in([before]))
    time.sleep(2.5)
    town.flood(Flood("random", RATE, 4.0))
    began = time.monotonic()
    # From another port of its address, as after a restart of the phone or of its router.
    again, stranger = town.newcomer(beside=before), town.newcomer()
    for each in (again, stranger):
        each.start(began + BURSTS_SPENT)
    town.clock.run(began + 3.0, lambda: all_in([again, stranger]))
    assert again.sent == 2
    assert stranger.sent > 2


@IN_TWO_FORMS
def test_who_has_logged_in_before_is_limited_like_a_stranger(
    firewall: Firewall, town: Town
) -> None:
    """The exemption is from the cap alone: a port has 20 at once and 10 a second."""
    firewall.load(FORGETFUL)
    before = town.newcomer()
    before.start(time.monotonic())
    town.clock.run(time.monotonic() + 5, lambda: all_in([before]))
    time.sleep(2.5)
    town.flood(Flood("random", RATE, 2.0))
    time.sleep(BURSTS_SPENT)
    again = town.newcomer(beside=before)
    for number in range(300):
        message = again.place.request("REGISTER", number + 1, f"{number}@lab")
        again.socket.sendto(message, (again.place.switch, 5060))
    town.flooded()
    assert 20 <= town.heard(again) - 2 <= 40


# RFC 2544 keeps them for such tests: as many as the memory of repetitions holds.
NOBODYS = ip_network("198.18.0.0/15")


def fill(firewall: Firewall, lab: Lab, name: str) -> None:
    """Fill a set of so many addresses and ports with nobody's."""
    if firewall.own_table:
        elements = ", ".join(f"{each} . udp . 5060 timeout 60s" for each in NOBODYS)
        argv = ["nft", "-f", "-"]
        text = f"add element inet sipfw {name}4 {{ {elements} }}\n"
        more = f"add element inet sipfw {name}4 {{ 203.0.113.1 . udp . 5060 }}\n"
    else:
        # The kernel adds 16,384 addresses at once (IPSET_MAX_RANGE).
        networks = NOBODYS.subnets(new_prefix=18)
        argv = ["ipset", "restore"]
        text = "".join(f"add sipfw-{name}4 {each},udp:5060 timeout 60\n" for each in networks)
        # A part of the table that has less than its share takes some more.
        more = f"add sipfw-{name}4 203.0.113.0/24,udp:5060\n"
    # Whoever fails here would print a line of five megabytes.
    assert lab.switch.run(argv, text, check=False).returncode == 0, f"cannot fill {name}"
    assert lab.switch.run(argv, more, check=False).returncode != 0, f"{name} is not full"


@pytest.mark.parametrize(
    ("firewall", "family"), [("legacy", "ip"), ("nftables", "ip")], indirect=True
)
def test_a_full_memory_harms_nobody(lab: Lab, firewall: Firewall, town: Town) -> None:
    """A repetition cannot be noted any more; it comes in, and the caps hold."""
    firewall.load({"profile": "wholesale", **trusting()})
    known = town.newcomer()
    known.start(time.monotonic())
    town.clock.run(time.monotonic() + 5, lambda: all_in([known]))
    fill(firewall, lab, "seen-twice")
    town.flood(Flood("random", RATE, 5.0))
    began = time.monotonic()
    regulars = [town.regular(known), town.carrier()]
    for each in regulars:
        each.start(began, 4.5, rate=5.0)
    phones = [town.newcomer() for _ in range(4)]
    for number, phone in enumerate(phones):
        phone.start(began + BURSTS_SPENT + 0.2 * number)
    town.clock.run(began + 5.0)
    assert all_in(phones)
    assert max(phone.sent for phone in phones) <= 4
    assert [len(each.waits) for each in regulars] == [each.asked for each in regulars]
    sent = town.flooded()
    assert town.reached(sent.began + BURSTS_SPENT, 3.5).worst <= 500
