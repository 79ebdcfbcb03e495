"""How many wrong passwords anybody gets judged, good account or not: rows 5, 6 and 22."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from packets.cases import UNLIMITED
from packets.evidence.answers import RIGHT, by_method, digest
from packets.evidence.client import WRONG, paced
from packets.evidence.scene import (
    IN_ALL_FORMS,
    IN_TWO_FORMS,
    MANY_GUESSES,
    WITH_SCRIPT,
    Scene,
    guess,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family

pytestmark = pytest.mark.netns

FAILURES = 5
# What may be on its way when the last refusal is counted, and a login on probation now and then.
IN_FLIGHT = 4
POLICY: Mapping[str, Any] = {"limits": UNLIMITED, "learning": {"failures": FAILURES}}


@WITH_SCRIPT
@pytest.mark.parametrize(
    ("refusal", "good_every"), [(401, 0), (403, 10)], ids=["401", "403-between-good-logins"]
)
def test_a_learned_source_guesses_from_its_port(
    refusal: int, good_every: int, scene: Scene
) -> None:
    scene.start(POLICY, digest(wrong=refusal))
    insider = scene.phone("ip", 7000)
    assert insider.login() == [401, 200]
    guess([insider], MANY_GUESSES, 1.2, good_every)
    judged = scene.switch.settled(WRONG.encode())
    assert FAILURES <= judged <= FAILURES + IN_FLIGHT


@IN_ALL_FORMS
def test_a_learned_source_guesses_from_sixty_ports(scene: Scene, family: Family) -> None:
    scene.start(POLICY)
    insiders = [scene.phone(family, 7100 + number) for number in range(60)]
    assert insiders[0].login() == [401, 200]
    colleague = scene.phone(family, 7000)
    assert colleague.login() == [401, 200]
    with ThreadPoolExecutor(1) as beside_him:
        guessing = beside_him.submit(guess, insiders, MANY_GUESSES, 2.5)
        for _ in paced(2.4, 8):
            # A whole call, and a renewal, while the other is shut.
            assert colleague.passes("OPTIONS")
            assert colleague.login("INVITE") == [407, 200]
            assert colleague.ask("BYE") == 200
            assert colleague.login() == [401, 200]
        guessing.result()
    judged = scene.switch.settled(WRONG.encode())
    assert FAILURES <= judged <= 8 * FAILURES


def test_requests_without_a_password_in_between_buy_nothing(scene: Scene) -> None:
    scene.start(POLICY)
    insider = scene.phone("ip", 7000)
    assert insider.login() == [401, 200]
    for number in paced(1.0, MANY_GUESSES // 2):
        insider.send("SUBSCRIBE" if number % 2 else "REGISTER")
        insider.send("REGISTER", WRONG)
    assert 1 <= scene.switch.settled(WRONG.encode()) <= FAILURES + IN_FLIGHT


def test_a_good_login_in_between_buys_the_other_ports_nothing(scene: Scene) -> None:
    scene.start(POLICY)
    insiders = [scene.phone("ip", 7100 + number) for number in range(20)]
    honest = scene.phone("ip", 7000)
    assert honest.login() == [401, 200]
    for number in range(MANY_GUESSES):
        insiders[number % 20].send("REGISTER", WRONG)
        if number % 4 == 3:
            assert honest.ask("REGISTER", RIGHT) == 200
    assert FAILURES <= scene.switch.settled(WRONG.encode()) <= 8 * FAILURES


@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE", "MESSAGE"])
def test_passwords_are_guessed_with_other_methods(method: str, scene: Scene) -> None:
    """Whatever the method: a switch checks the password of an INVITE as well."""
    scene.start(POLICY)
    insider = scene.phone("ip", 7000)
    assert insider.login() == [401, 200]
    for _ in paced(0.5, 100):
        insider.send(method, WRONG)
    assert FAILURES <= scene.switch.settled(WRONG.encode()) <= FAILURES + IN_FLIGHT


@IN_TWO_FORMS
def test_after_the_window_a_typing_error_is_forgiven(scene: Scene) -> None:
    scene.start({"limits": UNLIMITED, "learning": {"failures": FAILURES, "window": "2s"}})
    phone = scene.phone("ip", 7000)
    assert phone.login() == [401, 200]
    guess([phone], 4 * FAILURES, 0.4)
    assert phone.ask("REGISTER", RIGHT, timeout=0.1) is None
    # What asks for no password goes on meanwhile.
    assert phone.passes("OPTIONS")
    time.sleep(3.2)
    phone.drain()
    assert phone.login() == [401, 200]


PROBES = {"INVITE": 404, "REGISTER": 404}
# A source on probation may send ten REGISTERs without a password a second, twenty at once, and
# those that it repeats have a lane of their own.
BARE_BURST, BARE_RATE = 20, 10


@WITH_SCRIPT
def test_a_guesser_changes_his_address_inside_his_network(scene: Scene) -> None:
    scene.start(POLICY)
    everywhere = [scene.stranger("ip6", 1, within=number) for number in range(1, 201)]
    guess(everywhere, 200, 1.0)
    assert FAILURES <= scene.switch.settled(WRONG.encode()) <= 2 * FAILURES
    # The network beside his is another customer's.
    assert scene.stranger("ip6", 2).login() == [401, 200]


@pytest.mark.parametrize("method", PROBES)
def test_a_prober_changes_his_address_inside_his_network(method: str, scene: Scene) -> None:
    scene.start(POLICY, by_method({"*": 404}))
    everywhere = [scene.stranger("ip6", 1, within=number) for number in range(1, 201)]
    started = time.monotonic()
    for number in paced(1.0, 200):
        everywhere[number].send(method, user=f"{100 + number}")
    reached = scene.switch.settled(method.encode() + b" ")
    elapsed = time.monotonic() - started
    probation = BARE_BURST + 2 * BARE_RATE * elapsed if method == "REGISTER" else FAILURES
    assert FAILURES <= reached <= FAILURES + probation
    assert scene.stranger("ip6", 2).ask("INVITE") == 404


def test_names_are_tried_against_a_switch_that_challenges_them_all(scene: Scene) -> None:
    """It tells nothing about a name; all the same nobody has three hundred lamp keys."""
    scene.start(POLICY)
    prober = scene.stranger("ip", 1)
    for number in paced(1.0, MANY_GUESSES):
        prober.send("REGISTER", user=f"{100 + number}")
    assert 24 <= scene.switch.settled(b"REGISTER ") <= 100


@WITH_SCRIPT
def test_a_full_set_of_bans_lets_nobody_guess_on(scene: Scene) -> None:
    scene.start({**POLICY, "bans": {"size": 2}})
    guessers = [scene.stranger("ip", number) for number in range(6)]
    for guesser in guessers:
        guess([guesser], 40, 0.25)
        scene.switch.rest(0.02)
    judged = [scene.switch.settled(WRONG.encode(), source=guesser.place[0]) for guesser in guessers]
    assert max(judged) <= FAILURES + IN_FLIGHT
    assert min(judged) >= FAILURES
