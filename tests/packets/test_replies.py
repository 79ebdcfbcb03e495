"""The switch's replies as judge: they teach, they ban, and they free whom a spoofer has framed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

import pytest

from lab import sip
from packets.cases import UNLIMITED, trusting
from packets.phone import REGISTRAR, WRONG, Phone

if TYPE_CHECKING:
    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

FAILURES = 10
# What one source over all its ports may still try at once while banned.
TRICKLE_SOURCE = 3
# Challenges that a phone may leave open: each of its lamp keys has one.
UNANSWERED = 32
FORGED = [("Authorization", WRONG)]


def test_the_ban_comes_with_the_last_failure_that_the_policy_names(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    assert failures_until_ban(lab, firewall, family) == FAILURES
    assert firewall.counted("failure.ban", family) >= 1


def test_the_ban_without_ipset_comes_with_the_same_failure(
    lab: Lab, setless_firewall: Firewall, family: Family
) -> None:
    assert failures_until_ban(lab, setless_firewall, family) == FAILURES
    assert setless_firewall.counted("failure.ban", family) >= 1


def failures_until_ban(lab: Lab, firewall: Firewall, family: Family) -> int:
    firewall.load({"learning": {"failures": FAILURES}})
    lab.switch.udp_sink(5060, REGISTRAR)
    attacker = Phone(lab, lab.attacker, family, 5080, WRONG)
    for number in range(1, FAILURES + 2):
        assert attacker.ask(authorized=True) == 403
        if firewall.contains("banned", lab.attacker.address(family)):
            return number
    pytest.fail(f"no ban after {FAILURES + 1} failures")


def test_guessing_from_one_port_ends_after_the_failures(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"learning": {"failures": FAILURES}})
    sink = lab.switch.udp_sink(5060, REGISTRAR)
    attacker = Phone(lab, lab.attacker, family, 5080, WRONG)
    for _ in range(100):
        attacker.ask(authorized=True, timeout=0.01)
    reached = sink.settle()
    # The port is shut with the last failure; one more may have been under way.
    assert FAILURES <= reached <= FAILURES + 1
    assert firewall.counted("failure.ban", family) >= 1
    shut = ("port.drop", "port.no-login", "guesses.shut")
    assert sum(firewall.counted(name, family) for name in shut) == 100 - reached
    assert firewall.contains("banned", lab.attacker.address(family))


def test_guessing_from_many_ports_ends_after_the_failures(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"learning": {"failures": FAILURES}})
    sink = lab.switch.udp_sink(5060, REGISTRAR)
    phones = [Phone(lab, lab.attacker, family, 6000 + number, WRONG) for number in range(100)]
    started = time.monotonic()
    for phone in phones:
        phone.ask(authorized=True, timeout=0.01)
    elapsed = time.monotonic() - started
    reached = sink.settle()
    assert FAILURES + TRICKLE_SOURCE <= reached <= FAILURES + TRICKLE_SOURCE + elapsed + 1
    assert firewall.counted("failure.ban", family) >= 1
    assert firewall.counted("guesses.source", family) == 100 - reached
    assert firewall.contains("banned", lab.attacker.address(family))


def test_challenges_that_are_never_answered_are_failures(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"limits": UNLIMITED})
    lab.switch.udp_sink(5060, REGISTRAR)
    attacker = Phone(lab, lab.attacker, family, 5080)
    assert {attacker.ask() for _ in range(UNANSWERED - 1)} == {401}
    assert not firewall.contains("banned", lab.attacker.address(family))
    assert attacker.ask() == 401
    assert firewall.counted("refused.401-udp", family) == UNANSWERED
    assert firewall.contains("banned", lab.attacker.address(family))


def test_a_login_answers_the_challenges_before_it(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"limits": UNLIMITED})
    lab.switch.udp_sink(5060, REGISTRAR)
    phone = Phone(lab, lab.office, family, 5080)
    for _ in range(2):
        assert {phone.ask() for _ in range(UNANSWERED - 1)} == {401}
        # Unlike a success, it leaves the phone a stranger.
        assert phone.ask("MESSAGE", authorized=True) == 200
    assert not firewall.contains("banned", lab.office.address(family))


Refusal: TypeAlias = tuple[int, str, bool]


@pytest.mark.parametrize(
    ("refusal", "bans"),
    [
        ((404, "INVITE", False), True),
        ((404, "REGISTER", False), True),
        ((403, "INVITE", False), True),
        ((401, "INVITE", True), True),
        ((407, "MESSAGE", True), True),
        ((403, "SUBSCRIBE", True), True),
        ((404, "INVITE", True), False),
        ((407, "INVITE", False), False),
        ((404, "NOTIFY", False), False),
        ((405, "NOTIFY", False), False),
        ((404, "MESSAGE", False), False),
        ((400, "INVITE", True), False),
        ((408, "INVITE", False), False),
    ],
)
def test_which_refusals_ban(
    refusal: Refusal, bans: bool, lab: Lab, firewall: Firewall, family: Family
) -> None:
    status, method, authorized = refusal
    firewall.load()
    lab.switch.udp_sink(5060, {"*": status})
    caller = Phone(lab, lab.attacker, family, 5080)
    # A banned source may not even call, so its last request may stay unanswered.
    answers = [caller.ask(method, authorized=authorized, timeout=0.1) for _ in range(FAILURES)]
    assert set(answers[:-1]) == {status}
    assert firewall.contains("banned", lab.attacker.address(family)) is bans


def test_digest_logins_teach_and_never_ban(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"limits": UNLIMITED})
    lab.switch.udp_sink(5060, REGISTRAR)
    own = lab.office.address(family)
    phone = Phone(lab, lab.office, family, 5080)
    for _ in range(3 * FAILURES):
        assert phone.login() == [401, 200]
        assert firewall.contains("learned", own)
        # A stranger again, whose challenge would count if it were a failure.
        firewall.remove("learned", own)
    assert firewall.counted("refused.401-udp", family) == 3 * FAILURES
    assert firewall.counted("failure.count", family) == 0
    assert firewall.counted("failure.ban", family) == 0
    assert not firewall.contains("banned", own)


def test_digest_logins_teach_without_ipset(
    lab: Lab, setless_firewall: Firewall, family: Family
) -> None:
    setless_firewall.load({"limits": UNLIMITED})
    lab.switch.udp_sink(5060, REGISTRAR)
    own = lab.office.address(family)
    phone = Phone(lab, lab.office, family, 5080)
    for _ in range(FAILURES + 2):
        assert phone.login() == [401, 200]
        assert setless_firewall.contains("learned", own)
    assert setless_firewall.counted("learn.add", family) == 1
    assert setless_firewall.counted("renew.learned", family) == FAILURES + 1
    assert not setless_firewall.contains("banned", own)


def test_a_learned_phone_passes_limits_and_scanner_tests(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(5060, REGISTRAR)
    phone = Phone(lab, lab.office, family, 5080)
    assert phone.login() == [401, 200]
    sink.clear()
    for _ in range(200):
        phone.send("SUBSCRIBE", agent="friendly-scanner")
    assert sink.settle() == 200
    assert firewall.counted("learned.accept", family) == 200
    assert firewall.counted("scanner.ua.friendly-scanner", family) == 0


def test_an_answered_call_teaches_little(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(5060, {"INVITE": [100, 180, 200]})
    caller, own = Phone(lab, lab.attacker, family, 5080), lab.attacker.address(family)
    caller.send("OPTIONS")
    assert sink.settle() == 0
    assert caller.ask("INVITE") == 100
    time.sleep(0.05)
    assert firewall.counted("called.add", family) == 1
    assert not firewall.contains("learned", own)
    assert firewall.contains("callers", own)
    caller.send("OPTIONS")
    assert sink.settle() == 2
    caller.send("REGISTER", agent="friendly-scanner")
    assert sink.settle() == 2


def test_a_call_behind_a_challenge_teaches(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load({"learning": {"pending": "1s"}})
    own, port = lab.office.address(family), 5080
    phone = Phone(lab, lab.office, family, port)
    switch = lab.switch.udp_socket(5060)
    question = sip.request("INVITE", source=own, destination=own)

    def answer(status: int) -> None:
        switch.send(own, port, sip.response(status, question))

    phone.send("INVITE")
    answer(407)
    phone.send("INVITE", authorized=True)
    answer(180)
    # Longer than a REGISTER may wait: an INVITE rings.
    time.sleep(2)
    answer(200)
    assert firewall.contains("learned", own)


@pytest.mark.parametrize("method", ["OPTIONS", "SUBSCRIBE"])
def test_success_of_another_method_does_not_teach(
    method: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"scanners": {"block_options": False}})
    lab.switch.udp_sink(5060, {method: 200})
    caller = Phone(lab, lab.attacker, family, 5080)
    # The unanswered REGISTER makes the source one whose answers are judged.
    caller.send("REGISTER")
    assert caller.ask(method) == 200
    assert firewall.contains("pending", lab.attacker.address(family))
    assert firewall.counted("method.other", family) == 1
    assert not firewall.contains("learned", lab.attacker.address(family))


def test_success_without_a_request_does_not_teach(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    target = lab.attacker.address(family)
    question = sip.request("REGISTER", source=target, destination=target)
    answer = sip.response(200, question)
    lab.switch.send_udp(target, 5062, answer, source_port=5060)
    assert firewall.counted("replies.2xx-udp", family) == 1
    assert firewall.counted("success.other", family) == 1
    assert not firewall.contains("learned", target)


@pytest.mark.parametrize(
    ("peer", "rule"),
    [
        ({}, "trusted.accept"),
        ({"transports": ["udp"]}, "trusted.udp"),
        ({"source_ports": [5080]}, "trusted.ports"),
        ({"tier": "large"}, "trusted.within-tier"),
    ],
    ids=["all", "udp", "port", "tier"],
)
def test_a_trusted_peer_may_fail_as_often_as_it_likes(
    peer: dict[str, object], rule: str, lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({**trusting(**peer), "tiers": {"enforce": True}})
    sink = lab.switch.udp_sink(5060, {"*": 403})
    caller = Phone(lab, lab.carrier, family, 5080)
    assert [caller.ask("INVITE") for _ in range(50)] == [403] * 50
    assert sink.count() == 50
    assert firewall.counted(rule, family) == 50
    assert firewall.counted("failure.ban", family) == 0
    assert not firewall.contains("banned", lab.carrier.address(family))


def test_a_framed_customer_frees_itself(lab: Lab, firewall: Firewall, family: Family) -> None:
    firewall.load()
    sink = lab.switch.udp_sink(5060, REGISTRAR)
    phone = Phone(lab, lab.office, family, 5080)
    own = lab.office.address(family)
    forged = sip.request("REGISTER", source=own, destination=phone.target, extra_headers=FORGED)
    lab.attacker.spoof_udp([own] * FAILURES, phone.target, range(7000, 7010), 5060, forged)
    assert sink.settle() == FAILURES
    assert firewall.contains("banned", own)
    assert phone.ask("SUBSCRIBE", timeout=0.1) is None
    assert firewall.counted("banned.drop", family) == 1
    assert phone.login() == [401, 200]
    assert firewall.counted("banned.probation", family) == 1
    assert firewall.counted("guesses.probation", family) == 1
    assert firewall.contains("learned", own)
    assert not firewall.contains("banned", own)
    assert phone.ask("SUBSCRIBE") == 200


def test_a_framed_customer_logs_in_right_after_a_flood_in_its_name(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load()
    lab.switch.udp_sink(5060, REGISTRAR)
    phone = Phone(lab, lab.office, family, 5080)
    own = lab.office.address(family)
    firewall.add("banned", own)
    forged = sip.request("REGISTER", source=own, destination=phone.target)
    lab.attacker.spoof_udp([own] * 200, phone.target, range(7000, 7200), 5060, forged)
    assert firewall.counted("banned.trickle", family) >= 150
    assert firewall.counted("repeated.drop", family) >= 150
    # The trickle of one source grows by ten REGISTERs a second, and a login takes two.
    time.sleep(0.3)
    assert phone.login() == [401, 200]
    assert firewall.contains("learned", own)
    assert not firewall.contains("banned", own)
