"""What real phones do all day is no evidence against them: rows 1 to 3 of the evidence."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from packets.cases import UNLIMITED
from packets.evidence.answers import RIGHT, STALE, by_method, digest, respond
from packets.evidence.client import Phone, beside, paced, statuses_of
from packets.evidence.scene import IN_ALL_FORMS, IN_TWO_FORMS, Scene, learned_rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family
    from packets.evidence.switch import Answer

pytestmark = pytest.mark.netns

KEYS = 24
# Two requests a key, within 40 at once and five a second of one port.
PAUSE = 0.09
PHONES = 15
ENTERPRISE: Mapping[str, Any] = {"profile": "enterprise", "switch": "freepbx"}
RETAIL: Mapping[str, Any] = {"profile": "retail", "switch": "freepbx"}


def still_welcome(scene: Scene, phone: Phone) -> None:
    """Show that another phone behind the same address calls and registers at the first try."""
    other = beside(phone, scene.lab, 9090)
    assert other.ask("INVITE", user="112") == 407
    assert other.login() == [401, 200]


@IN_ALL_FORMS
def test_the_lamp_keys_of_one_phone(scene: Scene, family: Family) -> None:
    scene.start(ENTERPRISE)
    phone = scene.phone(family, 7000)
    for number in paced(KEYS * PAUSE, KEYS):
        assert phone.login("SUBSCRIBE", f"{200 + number}") == [401, 200], number
    still_welcome(scene, phone)


def test_lamp_keys_that_overlap(scene: Scene) -> None:
    """The next key is challenged while the login of the one before is under way."""
    scene.start(ENTERPRISE, digest(success={"SUBSCRIBE": [(0.03, 200)]}))
    phone = scene.phone("ip", 7000)
    phone.send("SUBSCRIBE", user="200")
    for number in paced(KEYS * PAUSE, KEYS):
        phone.send("SUBSCRIBE", RIGHT, user=f"{200 + number}")
        phone.send("SUBSCRIBE", user=f"{201 + number}")
    scene.switch.rest()
    answers = phone.drain()
    assert answers.count(200) == KEYS
    assert answers.count(401) == KEYS + 1
    still_welcome(scene, phone)


@IN_TWO_FORMS
@pytest.mark.parametrize(
    ("policy", "seconds"), [(RETAIL, 2.0), (ENTERPRISE, 4.5)], ids=["retail", "enterprise"]
)
def test_an_office_whose_lamp_keys_are_all_challenged_before_anybody_logs_in(
    policy: Mapping[str, Any], seconds: float, scene: Scene
) -> None:
    scene.start(policy)
    phones = [scene.phone("ip", 7000 + number) for number in range(PHONES)]
    asked = [("REGISTER", "1000"), *(("SUBSCRIBE", f"{200 + key}") for key in range(KEYS))]
    everything = [(phone, *each) for each in asked for phone in phones]
    for number in paced(seconds, len(everything)):
        phone, method, user = everything[number]
        phone.send(method, user=user)
    scene.switch.rest()
    assert [phone.drain() for phone in phones] == [[401] * (1 + KEYS)] * PHONES
    # Paced like phones that answer what they have just been asked.
    for number in paced(len(everything) / 180, len(everything)):
        phone, method, user = everything[number]
        phone.send(method, RIGHT, user=user)
    scene.switch.rest()
    assert [phone.drain() for phone in phones] == [[200] * (1 + KEYS)] * PHONES
    still_welcome(scene, phones[0])


@pytest.mark.parametrize(
    ("method", "statuses"),
    [("NOTIFY", (404, 405, 489)), ("MESSAGE", (404, 403, 405)), ("OPTIONS", (404, 403, 401))],
    ids=["keep-alives", "texts", "qualifies"],
)
def test_refused_keep_alives(method: str, statuses: tuple[int, ...], scene: Scene) -> None:
    answers = itertools.cycle(statuses)
    wanted = digest(open_methods={})

    def answer(request: bytes) -> list[Answer]:
        if request.startswith(method.encode()):
            return [(0.0, respond(next(answers), request))]
        return wanted(request)

    scene.start({**ENTERPRISE, "scanners": {"block_options": False}}, answer)
    phone = scene.phone("ip", 7000)
    for number in range(30):
        assert phone.ask(method) == statuses[number % 3], number
    still_welcome(scene, phone)


def test_answered_challenges_of_other_methods(scene: Scene) -> None:
    scene.start({**ENTERPRISE, "limits": UNLIMITED})
    for port, method in enumerate(("MESSAGE", "PUBLISH", "REFER"), 7000):
        phone = scene.phone("ip", port)
        for number in range(KEYS):
            assert phone.login(method) == [401, 200], (method, number)
        still_welcome(scene, phone)


def test_a_password_under_an_old_nonce_is_not_wrong(scene: Scene) -> None:
    scene.start({**ENTERPRISE, "limits": UNLIMITED})
    phone = scene.phone("ip", 7000)
    for _ in range(KEYS):
        assert phone.ask("REGISTER", STALE) == 401
        assert phone.ask("REGISTER", RIGHT) == 200
    # Nor where it is all that comes for a while.
    other = scene.phone("ip", 7001)
    assert [other.ask("SUBSCRIBE", STALE) for _ in range(KEYS)] == [401] * KEYS
    assert other.ask("SUBSCRIBE", RIGHT) == 200
    still_welcome(scene, phone)


@pytest.mark.parametrize("registers", [True, False], ids=["registered", "trunk"])
def test_thirty_wrong_numbers(registers: bool, scene: Scene) -> None:
    scene.start({**ENTERPRISE, "limits": UNLIMITED}, digest(missing=["404404"]))
    phone = scene.phone("ip", 7000)
    if registers:
        assert phone.login() == [401, 200]
    for _ in range(30):
        assert phone.login("INVITE", "404404") == [407, 404]
    assert phone.login("INVITE", "112") == [407, 200]
    still_welcome(scene, phone)


RENEWALS = ("REGISTER", "SUBSCRIBE", "OPTIONS", "INVITE")


@IN_ALL_FORMS
def test_every_success_of_a_learned_source_renews_it(scene: Scene, family: Family) -> None:
    scene.start({"learning": {"registered_ttl": "3s"}})
    phones = [scene.stranger(family, number) for number in range(1 + len(RENEWALS))]
    _idle, *busy = phones
    for phone in phones:
        assert phone.login() == [401, 200]
    time.sleep(1.8)
    renewed = [phone.ask(method, RIGHT) for phone, method in zip(busy, RENEWALS, strict=True)]
    assert renewed == [200] * len(RENEWALS)
    time.sleep(1.8)
    for phone in phones:
        phone.send("OPTIONS")
    assert statuses_of(phones) == [None, *([200] * len(RENEWALS))]


# An INVITE rings for longer than any request may otherwise be pending.
RINGING: Mapping[str, Any] = {
    "learning": {"pending": "1s", "ringing": "20s"},
    "limits": {**UNLIMITED, "hashlimit": {"rate": "1/second", "burst": 10, "expire": "30s"}},
}
SLOWLY = [(0.0, 180), (2.5, 200)]


@IN_ALL_FORMS
def test_a_call_that_is_answered_late(scene: Scene, family: Family) -> None:
    wants_password = digest(success={"INVITE": SLOWLY})
    believes = by_method({"INVITE": SLOWLY, "REGISTER": [(2.5, 200)], "*": 200})

    def answer(request: bytes) -> list[Answer]:
        return (believes if b"sip:55@" in request else wants_password)(request)

    scene.start(RINGING, answer)
    phones = [scene.stranger(family, number) for number in range(4)]
    trunk, guest, late, nobody = phones
    assert trunk.ask("INVITE") == 407
    trunk.send("INVITE", RIGHT)
    guest.send("INVITE", user="55")
    late.write(late.message("REGISTER", headers=[("X-To", "sip:55@lab.example")]))
    time.sleep(2.7)
    for phone in (trunk, guest):
        assert phone.statuses() == [180, 200]
        phone.send("ACK")
    assert late.statuses() == [200]
    for phone in phones:
        phone.send("OPTIONS")
    # A REGISTER is answered soon, and who sent nothing is nobody.
    assert statuses_of(phones) == [200, 200, None, None]
    assert nobody.drain() == []
    assert learned_rates([trunk, guest], scene, 10) == [True, False]


@IN_TWO_FORMS
@pytest.mark.parametrize("credentials", [True, False], ids=["trunk", "guest"])
def test_what_an_answered_call_buys(credentials: bool, scene: Scene) -> None:
    believes = by_method({"INVITE": [(0.0, 100), (0.0, 200)], "*": 200})
    scene.start(RINGING, digest() if credentials else believes)
    caller, stranger = scene.stranger("ip", 1), scene.stranger("ip", 2)
    if credentials:
        assert caller.login("INVITE") == [407, 200]
    else:
        assert caller.ask("INVITE") == 200
    assert caller.passes("OPTIONS")
    assert not stranger.passes("OPTIONS")
    assert learned_rates([caller], scene, 10) == [credentials]


def test_credentials_that_nobody_asked_for_are_no_login(scene: Scene) -> None:
    """A guest's INVITE may carry any Authorization; the switch has not looked at it."""
    scene.start(RINGING, by_method({"INVITE": 200, "*": 200}))
    caller = scene.stranger("ip", 1)
    assert caller.ask("INVITE", "anything") == 200
    assert learned_rates([caller], scene, 10) == [False]
