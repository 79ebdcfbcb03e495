"""Whom the switch has asked may answer; nobody else's answers count: rows 4 and 12."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sip
from packets.cases import UNLIMITED
from packets.evidence.answers import RIGHT, respond
from packets.evidence.client import WRONG, Phone, beside, paced
from packets.evidence.scene import IN_ALL_FORMS, Scene

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab import Family

pytestmark = pytest.mark.netns

CALLS = 120
ANSWERS: Mapping[str, Sequence[int]] = {
    "INVITE": (100, 180, 200),
    "REGISTER": (401,),
    "OPTIONS": (404,),
    "BYE": (403,),
}


def asked(phone: Phone, method: str) -> bytes:
    """Return a request of the switch to that place."""
    return sip.request(method, source=phone.switch, destination=phone.place[0])


def answers_arrive(scene: Scene, provider: Phone, method: str, calls: int) -> int:
    """Let the switch ask and the provider answer, both at a busy rate, and count the answers."""
    for _ in paced(calls / 100, calls):
        request = asked(provider, method)
        scene.switch.say(provider.place, request)
        provider.socket.recv(65535)
        for status in ANSWERS[method]:
            provider.write(respond(status, request))
    return scene.switch.settled(b"SIP/2.0 ", source=provider.place[0])


@IN_ALL_FORMS
def test_a_provider_that_is_not_listed_answers_every_call(scene: Scene, family: Family) -> None:
    scene.start()
    provider = scene.phone(family, 5060, scene.lab.carrier)
    assert answers_arrive(scene, provider, "INVITE", CALLS) == 3 * CALLS
    # It is not thereby good for anything else.
    assert not provider.passes("OPTIONS")
    assert provider.ask("REGISTER") == 401


def test_refusals_of_what_the_switch_has_asked_arrive(scene: Scene) -> None:
    scene.start()
    provider = scene.phone("ip", 5060, scene.lab.carrier)
    wanted = 0
    for method in ("REGISTER", "OPTIONS", "BYE"):
        wanted += 40 * len(ANSWERS[method])
        assert answers_arrive(scene, provider, method, 40) == wanted, method
    assert not provider.passes("OPTIONS")


def test_a_provider_whose_port_differs_answers_too(scene: Scene) -> None:
    """RFC 3261, 18.2.2: without rport an answer goes to the port of Via, from any port."""
    scene.start()
    provider = scene.phone("ip", 5060, scene.lab.carrier)
    other = scene.phone("ip", 32000, scene.lab.carrier)
    request = asked(provider, "INVITE")
    scene.switch.say(provider.place, request)
    other.write(respond(200, request))
    assert scene.switch.settled(b"SIP/2.0 200", port=32000) == 1


def test_a_banned_provider_answers(scene: Scene) -> None:
    scene.start({"limits": UNLIMITED})
    provider = scene.phone("ip", 5060, scene.lab.carrier)
    scene.ban(provider)
    provider.drain()
    assert answers_arrive(scene, provider, "INVITE", 20) == 60
    assert not provider.passes("INVITE")


def replies(phone: Phone, status: int, method: str) -> bytes:
    """Return an answer that would be forwarded to whom its second Via names."""
    request = sip.request(
        method,
        source=phone.switch,
        destination=phone.place[0],
        extra_headers=[("Via", f"SIP/2.0/UDP {sip.host_text(phone.place[0])}:5070;branch=z9hG4bK")],
    )
    return respond(status, request)


@IN_ALL_FORMS
def test_answers_of_strangers_are_dropped(scene: Scene, family: Family) -> None:
    scene.start()
    stranger = scene.stranger(family, 1)
    for status in (100, 180, 200, 302, 401, 403, 404, 407, 503):
        for method in ("REGISTER", "INVITE", "OPTIONS"):
            stranger.write(replies(stranger, status, method))
    assert scene.switch.settled(source=stranger.place[0]) == 0
    # Nor were they held against him; somebody may have written them in his name.
    assert stranger.login() == [401, 200]


def test_answers_of_strangers_are_dropped_while_the_switch_asks_somebody_else(
    scene: Scene,
) -> None:
    scene.start()
    provider, stranger = scene.phone("ip", 5060, scene.lab.carrier), scene.stranger("ip", 1)
    # What the switch says to a stranger's request is no question.
    assert stranger.ask("REGISTER") == 401
    request = asked(provider, "INVITE")
    scene.switch.say(provider.place, request)
    stranger.write(respond(200, request))
    assert scene.switch.settled(b"SIP/2.0 ", source=stranger.place[0]) == 0


def test_refusals_that_nobody_asked_for_frame_nobody(scene: Scene) -> None:
    scene.start()
    customer = scene.phone("ip", 7000)
    question = customer.message("REGISTER")
    for status in (401, 403, 404, 407):
        for port in (7000, 5060, 7001) * 4:
            scene.switch.say((customer.place[0], port), respond(status, question))
        customer.drain()
        assert customer.ask("INVITE") == 407, status
    assert customer.login() == [401, 200]


@IN_ALL_FORMS
def test_a_success_that_nobody_asked_for_teaches_nothing(scene: Scene, family: Family) -> None:
    scene.start()
    stranger = scene.stranger(family, 1)
    for method in ("REGISTER", "INVITE"):
        question = stranger.message(method, RIGHT)
        scene.switch.say(stranger.place, respond(200, question))
    stranger.drain()
    assert not stranger.passes("OPTIONS")


@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE"])
def test_a_success_of_another_kind_than_what_is_pending_teaches_nothing(
    method: str, scene: Scene
) -> None:
    scene.start()
    stranger = scene.stranger("ip", 1)
    assert stranger.ask(method) in {401, 407}
    scene.switch.say(stranger.place, respond(200, stranger.message("REGISTER")))
    # Neither does one for a neighbour's port.
    neighbour = beside(stranger, scene.lab, 5081)
    assert neighbour.ask("REGISTER") == 401
    scene.switch.say(stranger.place, respond(200, stranger.message("REGISTER", WRONG)))
    stranger.drain()
    assert not stranger.passes("OPTIONS")
    # One for the port that has asked does.
    scene.switch.say(neighbour.place, respond(200, neighbour.message("REGISTER", RIGHT)))
    neighbour.drain()
    assert stranger.passes("OPTIONS")
