"""Many phones behind one address: all of them register again after a power cut."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from packets.phone import REGISTRAR, WRONG, Phone

if TYPE_CHECKING:
    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = pytest.mark.netns

# Of the profile.
FAILURES = 20


def restart(phones: list[Phone]) -> list[list[int | None]]:
    """Let all phones log in and subscribe side by side and return each one's answers."""
    answers: list[list[int | None]] = [[] for _ in phones]
    steps = (("REGISTER", False), ("REGISTER", True), ("SUBSCRIBE", True), ("SUBSCRIBE", True))
    for method, authorized in steps:
        for phone in phones:
            phone.send(method, authorized=authorized)
        for phone, own in zip(phones, answers, strict=True):
            own.append(next(iter(phone.statuses(timeout=0.5)), None))
    return answers


def test_an_office_of_fifteen_phones_registers_at_once(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"profile": "retail"})
    sink = lab.switch.udp_sink(5060, REGISTRAR)
    phones = [Phone(lab, lab.office, family, 7000 + number) for number in range(15)]
    started = time.monotonic()
    assert restart(phones) == [[401, 200, 200, 200]] * 15
    assert time.monotonic() - started < 2
    assert sink.count() == 60
    assert firewall.contains("learned", lab.office.address(family))
    passed = ("learned.accept", "login.accept")
    assert sum(firewall.counted(name, family) for name in passed) >= 30
    assert not firewall.contains("banned", lab.office.address(family))


def test_a_wrong_password_in_the_office_harms_nobody(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"profile": "retail"})
    lab.switch.udp_sink(5060, REGISTRAR)
    phones = [Phone(lab, lab.office, family, 7000 + number) for number in range(14)]
    mistaken = Phone(lab, lab.office, family, 7014, WRONG)
    *others, refused = restart([*phones, mistaken])
    assert others == [[401, 200, 200, 200]] * 14
    assert refused == [401, 403, 200, 200]
    # It tries again for as long as nobody corrects it, and its port is shut for the window.
    answers = [mistaken.ask(authorized=True, timeout=0.05) for _ in range(40)]
    assert answers == [403] * (FAILURES - 1) + [None] * (40 - FAILURES + 1)
    assert firewall.counted("wrong.shut", family) == 1
    assert not firewall.contains("banned", lab.office.address(family))
    assert all(phone.login() == [401, 200] for phone in phones)


def test_an_office_with_more_phones_than_failures_registers_at_once(
    lab: Lab, firewall: Firewall, family: Family
) -> None:
    firewall.load({"profile": "retail"})
    lab.switch.udp_sink(5060, REGISTRAR)
    phones = [Phone(lab, lab.office, family, 7000 + number) for number in range(40)]
    started = time.monotonic()
    challenged: set[Phone] = set()
    waiting = list(phones)
    while waiting and time.monotonic() < started + 10:
        for phone in waiting:
            phone.send("REGISTER", authorized=phone in challenged)
        # RFC 3261 17.1.2: what got no answer is repeated after half a second.
        time.sleep(0.5)
        answers = {phone: phone.statuses(timeout=0.0) for phone in waiting}
        challenged |= {phone for phone, statuses in answers.items() if 401 in statuses}
        waiting = [phone for phone in waiting if 200 not in answers[phone]]
    assert not waiting, f"{len(waiting)} phones are still out"
    assert time.monotonic() - started < 6
    # Challenges are no failures, however many come at once.
    assert firewall.counted("identity.banned", family) == 0
    assert firewall.counted("learn.add", family) == 40
    assert firewall.contains("learned", lab.office.address(family))
    assert not firewall.contains("banned", lab.office.address(family))
