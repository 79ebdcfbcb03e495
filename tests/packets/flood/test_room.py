"""A flood of spoofed REGISTERs, and people beside it: unknown phones, known ones, a carrier.

Smaller than what bench/flood.py plays, and without a stop-watch: what counts is how many
datagrams a phone needs. Without a repetition those are two, a REGISTER and one with credentials.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from lab.flood.people import all_in
from lab.flood.town import Flood
from packets.cases import trusting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.flood.people import Newcomer, Regular
    from lab.flood.town import Town
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

POLICY: Mapping[str, Any] = {"profile": "wholesale", **trusting()}
RATE, SECONDS = 8000, 6.0
# Until what a cap grants at once is spent.
BURSTS_SPENT = 1.2
# Each backend, each kind of sources and each family; twice means half a second later again.
FORMS = [
    ("legacy", "ip", "random", None),
    ("legacy", "ip6", "networks", 0.5),
    ("nft-flavour", "ip", "networks", None),
    ("nftables", "ip", "random", 0.5),
    ("nftables", "ip6", "random", None),
]
IN_TWO_FORMS = pytest.mark.parametrize(
    ("firewall", "family"), [("legacy", "ip6"), ("nftables", "ip")], indirect=True
)


def registered(town: Town, count: int) -> list[Newcomer]:
    """Let so many phones register at the same moment."""
    phones = [town.newcomer() for _ in range(count)]
    for each in phones:
        each.start(time.monotonic())
    town.clock.run(time.monotonic() + 10, lambda: all_in(phones))
    assert all_in(phones)
    return phones


def asking(town: Town, phones: Sequence[Newcomer], seconds: float) -> list[Regular]:
    """Let registered phones and a carrier ask five times a second by each method."""
    regulars = [*(town.regular(each) for each in phones), town.carrier()]
    for each in regulars:
        each.start(time.monotonic(), seconds, rate=5.0)
    return regulars


@pytest.mark.parametrize(
    ("firewall", "family", "kind", "again"), FORMS, indirect=["firewall", "family"]
)
def test_a_flood_leaves_room_to_people(
    kind: str, again: float | None, firewall: Firewall, town: Town
) -> None:
    firewall.load(POLICY)
    learned = registered(town, 3)
    # In peace nothing is felt.
    assert [each.sent for each in learned] == [2, 2, 2]
    town.flood(Flood(kind, RATE, SECONDS, again))
    began = time.monotonic()
    regulars = asking(town, learned, SECONDS - 0.5)
    phones = [town.newcomer() for _ in range(8)]
    for number, each in enumerate(phones):
        each.start(began + BURSTS_SPENT + 0.15 * number)
    town.clock.run(began + SECONDS)
    # The first datagram is dropped, and where the flood comes twice perhaps the second one: of
    # the login the same.
    assert all_in(phones)
    assert max(each.sent for each in phones) <= 5
    assert [len(each.waits) for each in regulars] == [each.asked for each in regulars]
    sent = town.flooded()
    assert town.reached(sent.began + BURSTS_SPENT, sent.seconds - BURSTS_SPENT).worst <= 500


@IN_TWO_FORMS
def test_below_the_cap_no_first_datagram_is_dropped(firewall: Firewall, town: Town) -> None:
    firewall.load(POLICY)
    # All of it at once would not exceed the burst.
    town.flood(Flood("random", 800, 1.2))
    phones = [town.newcomer() for _ in range(10)]
    began = time.monotonic()
    for number, each in enumerate(phones):
        each.start(began + 0.1 * number)
    sent = town.flooded()
    town.clock.run(began + 3, lambda: all_in(phones))
    assert [each.sent for each in phones] == [2] * 10
    assert town.reached(sent.began, 3.0).total == sent.packets


@IN_TWO_FORMS
def test_after_a_flood_first_datagrams_are_answered_again(firewall: Firewall, town: Town) -> None:
    firewall.load(POLICY)
    town.flood(Flood("random", RATE, 1.0))
    town.flooded()
    time.sleep(6.0)
    assert [each.sent for each in registered(town, 3)] == [2, 2, 2]
