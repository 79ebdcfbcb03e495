"""Who dresses up: attack tools with an account, IP options, odd spellings: rows 14, 16, 20, 21."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from packets.cases import CARRIER, UNLIMITED, limited
from packets.evidence.answers import RIGHT
from packets.evidence.scene import IN_ALL_FORMS, IN_TWO_FORMS, Scene
from packets.evidence.wire import (
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    with_extension6,
    with_options4,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family
    from packets.evidence.client import Phone

pytestmark = pytest.mark.netns

TOOLS = ("friendly-scanner", "sipvicious", "sipcli/v1.8")


@IN_ALL_FORMS
def test_an_account_does_not_license_an_attack_tool(scene: Scene, family: Family) -> None:
    scene.start()
    insider = scene.phone(family, 7000)
    assert insider.login() == [401, 200]
    for tool in TOOLS:
        for method in ("REGISTER", "INVITE", "SUBSCRIBE"):
            insider.send(method, RIGHT, agent=tool)
    assert [scene.switch.settled(tool.encode()) for tool in TOOLS] == [0] * len(TOOLS)
    # Anybody could have written these in his name: they end nothing.
    assert insider.passes("OPTIONS")
    assert insider.login() == [401, 200]


@IN_ALL_FORMS
def test_a_stream_ends_with_the_text_of_an_attack_tool(scene: Scene, family: Family) -> None:
    scene.start(tcp_ports=[5060])
    insider = scene.connection(family)
    assert insider.login() == [401, 200]
    assert scene.phone(family, 7000).passes("OPTIONS")
    insider.send("REGISTER", RIGHT, agent="friendly-scanner")
    assert insider.dead()
    assert scene.switch.settled(b"friendly-scanner") == 0
    # On a stream nobody forges, so it was he: he is a stranger again.
    assert not scene.phone(family, 7001).passes("OPTIONS")


# One that nobody knows, with a text where a datagram without options has its method.
DISGUISE = b"REGISTER "
OPTIONS4 = {
    "nothing": b"\1" * 4,
    "much-nothing": b"\1" * 40,
    "record-route": bytes([7, 7, 4, 0, 0, 0, 0, 0]),
    "timestamp": bytes([68, 8, 5, 0, 0, 0, 0, 0]),
    "method": bytes([30, 20]) + bytes(6) + DISGUISE + bytes(3),
}
HEADERS6 = {
    "hop-by-hop": (HOP_BY_HOP, b""),
    "destination": (DESTINATION_OPTIONS, b""),
    "hop-by-hop-method": (HOP_BY_HOP, bytes(4) + DISGUISE),
    "destination-method": (DESTINATION_OPTIONS, bytes(4) + DISGUISE),
}


def dressed(sender: Phone, payload: bytes) -> list[bytes]:
    """Return the datagram in each of the disguises of its family."""
    target = (sender.switch, 5060)
    if sender.family == "ip6":
        return [with_extension6(sender.place, target, payload, *each) for each in HEADERS6.values()]
    return [with_options4(sender.place, target, payload, each) for each in OPTIONS4.values()]


@IN_ALL_FORMS
def test_options_of_ip_hide_nothing(scene: Scene, family: Family) -> None:
    trusted = {"trusted_peers": [dict(CARRIER)], "limits": UNLIMITED}
    scene.start({**trusted, "learning": {"failures": 3}})
    carrier = scene.phone(family, 5060, scene.lab.carrier)
    stranger, banned = scene.stranger(family, 1), scene.stranger(family, 2)
    scene.ban(banned)
    mine = dressed(carrier, carrier.message("OPTIONS"))
    scene.send_whole(carrier.host, mine, carrier.switch)
    assert scene.switch.settled(source=carrier.place[0]) == len(mine)
    before = scene.switch.settled(source=banned.place[0])
    for payload in (
        stranger.message("OPTIONS"),
        stranger.message("INVITE", agent="friendly-scanner"),
        stranger.message("REGISTER", RIGHT),
    ):
        scene.send_whole(stranger.host, dressed(stranger, payload), stranger.switch)
    for _ in range(5):
        packets = dressed(banned, banned.message("INVITE"))
        scene.send_whole(banned.host, packets, banned.switch)
    assert scene.switch.settled(source=stranger.place[0]) == 0
    assert scene.switch.settled(source=banned.place[0]) == before


HITS = 5
LIMITS: Mapping[str, Any] = {
    "recent": {"recent": {"hits": HITS, "seconds": 60}},
    "methods": {
        "methods": {name: {"rate": "1/minute", "burst": HITS} for name in ("invite", "register")}
    },
}
SPELLINGS = ("INVITE", "REGISTER", "INVIte", "REGIster", "InViTe", "register")


@IN_TWO_FORMS
@pytest.mark.parametrize("limit", LIMITS)
def test_a_spelling_escapes_no_limit(limit: str, scene: Scene, family: Family) -> None:
    scene.start(limited(**LIMITS[limit]), answer=lambda _request: [])
    for number, spelling in enumerate(SPELLINGS):
        stranger = scene.stranger(family, number)
        message = stranger.message(spelling.upper()).replace(
            spelling.upper().encode() + b" ", spelling.encode() + b" "
        )
        for _ in range(4 * HITS):
            stranger.write(message)
    scene.switch.rest()
    reached = [
        len(scene.switch.heard(source=scene.far(family, number)))
        for number in range(len(SPELLINGS))
    ]
    assert reached[:2] == [HITS, HITS]
    assert max(reached) <= HITS


@IN_ALL_FORMS
def test_a_limit_holds_though_many_others_come_in_between(scene: Scene, family: Family) -> None:
    scene.start(limited(recent={"hits": HITS, "seconds": 60}), answer=lambda _request: [])
    stranger = scene.stranger(family, 1)
    message = stranger.message("REGISTER")
    first = "2001:db8:77:{:x}::5" if family == "ip6" else "203.0.113.{}"
    others = [first.format(number) for number in range(20, 220)]
    for _ in range(4):
        for _ in range(HITS):
            stranger.write(message)
        time.sleep(0.01)
        scene.lab.attacker.spoof_udp(others, stranger.switch, 5060, 5060, message)
    scene.switch.rest()
    assert len(scene.switch.heard(source=stranger.place[0])) == HITS
    assert len(scene.switch.heard(source=others[0])) == 4
