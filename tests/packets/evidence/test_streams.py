"""Byte streams: how much, what a verdict does to them, who opened them: rows 7, 8, 11 and 19."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from lab import sip
from packets.cases import UNLIMITED
from packets.evidence.answers import RIGHT, digest, respond
from packets.evidence.client import WRONG, Connection
from packets.evidence.scene import IN_ALL_FORMS, IN_TWO_FORMS, WITH_SCRIPT, Scene

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from lab import Family
    from packets.evidence.switch import Answer, Answerer

pytestmark = pytest.mark.netns

TLS = 5061
PER_CONNECTION, PER_SOURCE = 20_000, 60_000
# A bucket may round, and the last piece may be larger than what is left.
ROUNDED = 1.25
FAILURES = 5
IN_FLIGHT = 3
STREAM: Mapping[str, Any] = {"per_connection": PER_CONNECTION, "per_source": PER_SOURCE}
POLICY: Mapping[str, Any] = {
    "signalling": {"tls": [TLS]},
    "limits": {**UNLIMITED, "stream": STREAM},
    "learning": {"failures": FAILURES},
}
PIECE = bytes(1000)


def pour(connection: Connection, pieces: int) -> None:
    for _ in range(pieces):
        if not connection.write(PIECE):
            return
        time.sleep(0.001)


def volume(scene: Scene, source: str) -> int:
    scene.switch.rest()
    return sum(len(each.payload) for each in scene.switch.heard(source=source))


@IN_ALL_FORMS
def test_a_stranger_says_so_much_on_an_encrypted_connection(scene: Scene, family: Family) -> None:
    scene.start(POLICY, tcp_ports=[TLS])
    phone = scene.connection(family, port=TLS)
    pour(phone, 6)
    assert volume(scene, phone.place[0]) == 6000
    stranger = scene.connection(family, port=TLS, number=1)
    pour(stranger, 200)
    poured = volume(scene, stranger.place[0])
    assert PER_CONNECTION / ROUNDED <= poured <= PER_CONNECTION * ROUNDED
    assert stranger.dead()
    # The phone's connection is another.
    pour(phone, 6)
    assert volume(scene, phone.place[0]) == 12_000


@IN_TWO_FORMS
def test_a_stranger_says_so_much_on_many_connections(scene: Scene, family: Family) -> None:
    scene.start(POLICY, tcp_ports=[TLS])
    for _ in range(10):
        try:
            connection = scene.connection(family, port=TLS, number=1)
        except OSError:
            break
        pour(connection, 12)
    source = scene.far(family, 1)
    assert PER_SOURCE / ROUNDED <= volume(scene, source) <= PER_SOURCE * ROUNDED
    other = scene.connection(family, port=TLS, number=2)
    pour(other, 6)
    assert volume(scene, other.place[0]) == 6000


UNWANTED: Mapping[str, tuple[str, str | None]] = {
    "options": ("OPTIONS", None),
    "text": ("REGISTER", "friendly-scanner"),
}


@IN_ALL_FORMS
@pytest.mark.parametrize("what", [*UNWANTED, "answer"])
def test_what_is_refused_on_a_stream_ends_it(what: str, scene: Scene, family: Family) -> None:
    scene.start(tcp_ports=[5060])
    stranger = scene.connection(family, number=1)
    if what == "answer":
        message = respond(200, stranger.message("OPTIONS", transport="TCP"))
    else:
        method, agent = UNWANTED[what]
        message = stranger.message(method, agent=agent, transport="TCP")
    stranger.write(message)
    assert stranger.dead(timeout=0.8)
    assert scene.switch.settled(source=stranger.place[0]) == 0
    again = scene.connection(family, number=1)
    assert again.ask("REGISTER") == 401


@IN_TWO_FORMS
@pytest.mark.parametrize("before", ["OPTIONS", None], ids=["keep-alive", "at-once"])
def test_a_phone_that_has_run_out_hangs_up(before: str | None, scene: Scene) -> None:
    scene.start({"learning": {"registered_ttl": "1s"}}, tcp_ports=[5060])
    phone = scene.connection("ip")
    assert phone.login() == [401, 200]
    time.sleep(2.2)
    started = time.monotonic()
    if before is not None:
        phone.send(before)
    answered = phone.send("BYE") and phone.ask("BYE", timeout=0.8) is not None
    # Through, or over: a phone that sees its connection end opens another.
    assert answered or phone.dead(0.1)
    assert time.monotonic() - started < 1
    if not answered:
        assert scene.connection("ip").ask("BYE") is not None


def behind_a_hundred(answer: Answerer) -> Answerer:
    """Let every final answer share a write with the 100 before it."""

    def together(request: bytes) -> list[Answer]:
        final = answer(request)
        return [(delay, respond(100, request) + text) for delay, text in final]

    return together


def guesses_on(connection: Connection, count: int) -> None:
    for number in range(count):
        if connection.ask("REGISTER", f"{WRONG}-{number}", timeout=0.15) is None:
            return


def judged_by_port(scene: Scene) -> list[int]:
    """Return how many wrong passwords arrived over each connection."""
    scene.switch.rest()
    found: dict[int, int] = {}
    for each in scene.switch.heard(WRONG.encode()):
        found[each.port] = found.get(each.port, 0) + each.payload.count(WRONG.encode())
    return list(found.values())


@IN_ALL_FORMS
@pytest.mark.parametrize("learned", [False, True], ids=["stranger", "insider"])
def test_refusals_count_wherever_they_stand(learned: bool, scene: Scene, family: Family) -> None:
    scene.start(POLICY, behind_a_hundred(digest()), tcp_ports=[5060])
    for _ in range(4):
        try:
            guesser = scene.connection(family, number=1)
        except OSError:
            break
        if learned:
            guesser.login()
        guesses_on(guesser, 30)
    judged = judged_by_port(scene)
    assert FAILURES <= max(judged) <= FAILURES + IN_FLIGHT
    # One account buys a stated few times what a stranger gets.
    assert sum(judged) <= (8 * FAILURES if learned else FAILURES + IN_FLIGHT)


def test_refusals_count_for_many_requests_in_a_write(scene: Scene) -> None:
    scene.start(POLICY, behind_a_hundred(digest()), tcp_ports=[5060])
    size = 0
    for _ in range(4):
        try:
            guesser = scene.connection("ip", number=1)
        except OSError:
            break
        guess = guesser.message("REGISTER", WRONG, transport="TCP")
        size = len(guess)
        for _ in range(4):
            if not guesser.write(guess * 20):
                break
            time.sleep(0.05)
    # What one segment holds is judged before the first of its refusals is written.
    assert FAILURES <= sum(judged_by_port(scene)) <= max(40, PER_CONNECTION // size)


def opened_by_the_switch(scene: Scene, family: Family) -> socket.socket:
    """Let the switch connect to the attacker and return the attacker's end."""
    own = scene.far(family, 1)
    listening = scene.wire.listening(scene.lab.attacker, (own, 0))
    port = listening.getsockname()[1]
    scene.switch.connect((scene.target(family), 0), (own, port))
    listening.settimeout(1.0)
    accepted, _ = listening.accept()
    accepted.settimeout(0.15)
    return scene.wire.keep(accepted)


def say_on(scene: Scene, accepted: socket.socket, payload: bytes) -> None:
    """Let the switch say something on its end."""
    peer = accepted.getsockname()
    scene.switch.say_on(peer[:2], payload)
    accepted.recv(65535)


def guess_on_it(scene: Scene, accepted: socket.socket, count: int) -> None:
    own = accepted.getsockname()[0]
    for number in range(count):
        message = sip.request(
            "REGISTER",
            source=own,
            destination=scene.target("ip"),
            transport="TCP",
            extra_headers=[("Authorization", f'Digest response="{WRONG}-{number}"')],
        )
        try:
            accepted.sendall(message)
            if not accepted.recv(65535):
                return
        except OSError:
            return


@WITH_SCRIPT
@pytest.mark.parametrize("first", ["answer", "request"])
def test_a_connection_that_the_switch_was_made_to_open(first: str, scene: Scene) -> None:
    scene.start(POLICY)
    total = 0
    for attempt in range(2):
        accepted = opened_by_the_switch(scene, "ip")
        own = accepted.getsockname()[0]
        request = sip.request("BYE", source=own, destination=own, transport="TCP")
        say_on(scene, accepted, request if first == "request" else respond(404, request))
        guess_on_it(scene, accepted, 60)
        judged = scene.switch.settled(WRONG.encode())
        # The second one is opened to somebody who is banned.
        assert judged <= (FAILURES + IN_FLIGHT if attempt == 0 else total + 1)
        total = judged
    assert total >= FAILURES


def test_who_is_banned_gets_no_further_on_a_connection_of_the_switch(scene: Scene) -> None:
    scene.start(POLICY, tcp_ports=[5060])
    accepted = opened_by_the_switch(scene, "ip")
    own = accepted.getsockname()[0]
    request = sip.request("BYE", source=own, destination=own, transport="TCP")
    say_on(scene, accepted, request)
    guesses_on(scene.connection("ip", number=1), 30)
    before = scene.switch.settled(WRONG.encode())
    assert before <= FAILURES + IN_FLIGHT
    guess_on_it(scene, accepted, 10)
    assert scene.switch.settled(WRONG.encode()) == before


@IN_TWO_FORMS
def test_a_provider_answers_on_a_connection_of_the_switch(scene: Scene, family: Family) -> None:
    scene.start({"limits": UNLIMITED})
    accepted = opened_by_the_switch(scene, family)
    own = accepted.getsockname()[0]
    for number in range(60):
        request = sip.request("INVITE", source=own, destination=own, transport="TCP")
        say_on(scene, accepted, request)
        statuses = (100, 403) if number % 6 == 0 else (100, 180, 200)
        for status in statuses:
            accepted.sendall(respond(status, request))
    scene.switch.rest()
    stream = b"".join(each.payload for each in scene.switch.heard(source=own))
    assert stream.count(b"SIP/2.0 100 ") == 60
    assert stream.count(b"SIP/2.0 200 ") == 50
    assert stream.count(b"SIP/2.0 403 ") == 10
    assert RIGHT.encode() not in stream
