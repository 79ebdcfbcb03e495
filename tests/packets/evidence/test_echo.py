"""Switches echo what they are sent; an echo of REGISTER is no login: row 13."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from packets.cases import UNLIMITED
from packets.evidence.answers import by_method, echoing
from packets.evidence.scene import IN_ALL_FORMS, WITH_SCRIPT, Scene, learned_rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab import Family

pytestmark = pytest.mark.netns

# A header of the message, and what stands in its place.
ECHOES: Mapping[str, tuple[str, str]] = {
    "call-id": ("Call-ID", "abc 1 REGISTER"),
    "no-digit": ("Call-ID", "abc REGISTER"),
    "lower-case": ("Call-ID", "abc 1 register"),
    "tab": ("Call-ID", "abc 1\tREGISTER"),
    "blanks-behind": ("Call-ID", "abc 1 REGISTER  "),
    "two-blanks": ("Call-ID", "abc 1  REGISTER"),
    "folded": ("Call-ID", "abc\r\n 1 REGISTER"),
    "folded-at-the-digit": ("Call-ID", "abc 1\r\n REGISTER"),
    "short-name": ("i", "abc 1 REGISTER"),
    "from": ("From", "<sip:1000@lab.example>;tag=7;x=1 REGISTER"),
    "via": ("Via", "SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK1 REGISTER"),
    "cseq": ("CSeq", "1 REGISTER"),
    "second-cseq": ("X-A: b\r\nCSeq", "7 REGISTER"),
    "bare-cr": ("Call-ID", "abc\r1 REGISTER"),
    "bare-lf": ("Call-ID", "abc\n1 REGISTER"),
}
METHODS = ("INVITE", "MESSAGE", "SUBSCRIBE", "CANCEL", "NOTIFY", "BYE", "INFO")
BURST = 15
LIMITED: Mapping[str, Any] = {
    "limits": {**UNLIMITED, "hashlimit": {"rate": "1/second", "burst": BURST, "expire": "30s"}}
}


def disguised(message: bytes, name: str, value: str) -> bytes:
    """Put a header into the place of the one of its kind, or before the blank line."""
    kinds = {"i": "Call-ID"}
    old = f"\r\n{kinds.get(name, name)}:".encode()
    head, _, body = message.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not (b"\r\n" + line).startswith(old)]
    return b"\r\n".join([*lines, f"{name}: {value}".encode(), b"", body])


@WITH_SCRIPT
def test_an_echo_of_a_login_teaches_nothing(scene: Scene) -> None:
    scene.start(LIMITED, echoing)
    for number, echo in enumerate(ECHOES.values()):
        for port, method in enumerate(METHODS, 5080):
            cheat = scene.stranger("ip", number, port)
            assert cheat.ask("REGISTER") == 401
            cheat.write(disguised(cheat.message(method), *echo))
            if method == "INVITE":
                cheat.write(disguised(cheat.message("CANCEL"), *echo))
    scene.switch.rest()
    probes = [scene.stranger("ip", number, 6000) for number in range(len(ECHOES))]
    taught = learned_rates(probes, scene, BURST)
    assert [name for name, got in zip(ECHOES, taught, strict=True) if got] == []


def test_an_echo_of_a_login_teaches_nothing_over_ipv6(scene: Scene) -> None:
    scene.start({"limits": UNLIMITED}, echoing)
    for number, name in enumerate(("call-id", "folded", "via")):
        for port, method in enumerate(("MESSAGE", "SUBSCRIBE", "CANCEL"), 5080):
            cheat = scene.stranger("ip6", number, port)
            assert cheat.ask("REGISTER") == 401
            cheat.write(disguised(cheat.message(method), *ECHOES[name]))
        scene.switch.rest()
        assert not scene.stranger("ip6", number, 6000).passes(timeout=0.1), name


@IN_ALL_FORMS
def test_a_cancelled_call_is_not_as_good_as_a_login(scene: Scene, family: Family) -> None:
    scene.start(LIMITED, by_method({"INVITE": [(0.0, 180), (0.0, 200)], "*": 200}))
    guest, member = scene.stranger(family, 1), scene.stranger(family, 2)
    assert guest.ask("INVITE") == 200
    for method in ("ACK", "CANCEL", "CANCEL", "BYE"):
        guest.send(method)
    assert member.ask("REGISTER") == 200
    scene.switch.rest()
    assert learned_rates([guest, member], scene, BURST) == [False, True]


def pieces(message: bytes, *texts: bytes) -> list[bytes]:
    """Cut a message in the middle of each of these texts, from its end on."""
    found = []
    for text in texts:
        middle = message.rindex(text) + len(text) // 2
        message, rest = message[:middle], message[middle:]
        found.append(rest)
    return [message, *reversed(found)]


def by_split(register: bytes, message: bytes) -> list[bytes]:
    return [register, *pieces(message, b"REGISTER")]


def by_split_at_the_digit(register: bytes, message: bytes) -> list[bytes]:
    middle = message.index(b"1 REGISTER") + 1
    return [register, message[:middle], message[middle:]]


def pipelined(register: bytes, message: bytes) -> list[bytes]:
    return [register + message]


def pipelined_and_split(register: bytes, message: bytes) -> list[bytes]:
    first, second = pieces(message, b"REGISTER")
    return [register + first, second]


def behind_blank_lines(register: bytes, message: bytes) -> list[bytes]:
    return [b"\r\n\r\n" + register, b"\r\n\r\n" + message]


def in_lower_case(register: bytes, message: bytes) -> list[bytes]:
    return [register, message.replace(b"1 REGISTER", b"1 register")]


TRICKS = [
    by_split, by_split_at_the_digit, pipelined, pipelined_and_split, behind_blank_lines,
    in_lower_case,
]  # fmt: skip


@WITH_SCRIPT
def test_an_echo_on_a_stream_teaches_nothing(scene: Scene) -> None:
    scene.start({"limits": UNLIMITED}, echoing, tcp_ports=[5060])
    cheats: list[tuple[str, int]] = []
    for trick in TRICKS:
        for method in ("MESSAGE", "SUBSCRIBE", "CANCEL"):
            number = len(cheats)
            cheats.append((f"{trick.__name__} {method}", number))
            cheat = scene.connection("ip", number=number)
            register = cheat.message("REGISTER", transport="TCP")
            message = cheat.message(method, transport="TCP", call_id="abc 1 REGISTER")
            for segment in trick(register, message):
                if not cheat.write(segment):
                    break
                time.sleep(0.01)
    scene.switch.rest()
    taught = [name for name, number in cheats if scene.stranger("ip", number).passes(timeout=0.03)]
    assert taught == []
    # The same streams teach where the switch says yes to the REGISTER itself.
    scene.switch.behave(by_method({"*": 200}))
    member = scene.connection("ip", number=len(cheats))
    assert member.ask("REGISTER") == 200
    assert scene.stranger("ip", len(cheats)).passes()
