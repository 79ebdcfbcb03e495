"""A blind spoofer: packets in a customer's name, and floods in everybody's, against a registrar.

He writes any source address he likes and sees no answer.  When he stops, the customer whose name
he used logs in at the first try; while he goes on, a carrier's calls complete.
"""

from __future__ import annotations

import time
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from lab import sip
from packets.cases import trusting
from packets.registrar import PORT, REALM, DigestPhone, Registrar, needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lab import Family, Lab
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio")]

USER = "200"
# What a phone uses that nobody has told otherwise, so a spoofer guesses it.
PHONE_PORT = 5060
SPOOFED_PORTS = (PHONE_PORT, *range(7001, 7100))
BAD_LOGIN = f'Digest username="{USER}", realm="{REALM}", nonce="0", uri="sip:x", response="0"'
FLOOD = 3000
FLOOD_RATE = 6000
# Slow enough that the switch has answered the first ones, and banned, before the last ones come.
LOGINS = 60
LOGIN_RATE = 200

CALL = Path(__file__).with_name("call.xml")
CALLS = 20
STRANGERS = 20_000
STRANGERS_RATE = 8000

Attack: TypeAlias = "Callable[[Lab, Family], int]"
TWO_BACKENDS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
POLICY: Mapping[str, Any] = {"profile": "retail"}


@pytest.fixture
def registrar(lab: Lab, tmp_path: Path) -> Iterator[Registrar]:
    with Registrar(lab, tmp_path) as running:
        yield running


def scanner(lab: Lab, family: Family) -> int:
    return _in_the_name_of_the_office(lab, family, "REGISTER", FLOOD, agent="friendly-scanner")


def options(lab: Lab, family: Family) -> int:
    return _in_the_name_of_the_office(lab, family, "OPTIONS", FLOOD)


def invites(lab: Lab, family: Family) -> int:
    return _in_the_name_of_the_office(lab, family, "INVITE", FLOOD)


def registers(lab: Lab, family: Family) -> int:
    return _in_the_name_of_the_office(lab, family, "REGISTER", FLOOD)


def bad_logins(lab: Lab, family: Family) -> int:
    headers = [("Authorization", BAD_LOGIN)]
    return _in_the_name_of_the_office(
        lab, family, "REGISTER", LOGINS, rate=LOGIN_RATE, headers=headers
    )


def _in_the_name_of_the_office(
    lab: Lab,
    family: Family,
    method: str,
    count: int,
    *,
    rate: int = FLOOD_RATE,
    agent: str = "Desk Phone 1.0",
    headers: list[tuple[str, str]] | None = None,
) -> int:
    victim, target = lab.office.address(family), lab.switch.address_for(lab.office, family)
    payload = sip.request(
        method,
        source=victim,
        destination=target,
        user=USER,
        user_agent=agent,
        extra_headers=headers or [],
    )
    sent = lab.attacker.spoof_udp([victim] * count, target, SPOOFED_PORTS, PORT, payload, pps=rate)
    assert sent == count
    return sent


# A banned source's buckets refill by ten REGISTERs and by one login a second, and he may have
# emptied them: how long after his last packet a customer can need them again.
# A flood above the cap on strangers makes newcomers wait for their repetition until it has ended.
_RUSH = 5.5
_PAUSES = {scanner: _RUSH, registers: 0.3, bad_logins: 1.2}
ATTACKS = [scanner, options, invites, registers, bad_logins]


def logs_in_at_the_first_try(
    attack: Attack,
    lab: Lab,
    firewall: Firewall,
    registrar: Registrar,
    *,
    known: bool,
    family: Family = "ip",
) -> None:
    firewall.load(POLICY)
    phone = DigestPhone(lab, lab.office, USER, PHONE_PORT, family=family)
    own = lab.office.address(family)
    if known:
        assert phone.register() == [401, 200]
    assert firewall.contains("learned", own) is known
    sent = attack(lab, family)
    registrar.settle(quiet=0.02)
    time.sleep(0 if known else _PAUSES.get(attack, 0))
    # No second try: each of its requests is sent once and at once.
    assert phone.register() == [401, 200]
    assert len(registrar.verdicts(200, own)) == 1 + known
    assert firewall.counted("entry.udp", family) == sent + 2 * (1 + known)
    assert firewall.contains("learned", own)
    assert not firewall.contains("banned", own)


@TWO_BACKENDS
@pytest.mark.parametrize("known", [True, False], ids=["registered", "new"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_customer_logs_in_at_the_first_try_after_packets_in_its_name(
    attack: Attack, known: bool, lab: Lab, firewall: Firewall, registrar: Registrar
) -> None:
    logs_in_at_the_first_try(attack, lab, firewall, registrar, known=known)


@TWO_BACKENDS
@pytest.mark.parametrize("known", [True, False], ids=["registered", "new"])
def test_a_customer_logs_in_at_the_first_try_over_ipv6(
    known: bool, lab: Lab, firewall: Firewall, registrar: Registrar
) -> None:
    logs_in_at_the_first_try(registers, lab, firewall, registrar, known=known, family="ip6")


def strangers(count: int) -> list[str]:
    # IPv4 has too few documentation addresses; 198.18.0.0/15 is for such tests (RFC 2544).
    first = ip_address("198.18.0.1")
    return [str(first + number) for number in range(count)]


@needs("sipp")
@TWO_BACKENDS
@pytest.mark.parametrize("method", ["REGISTER", "INVITE"])
def test_every_call_of_a_carrier_completes_beside_twenty_thousand_strangers(
    method: str, lab: Lab, firewall: Firewall, registrar: Registrar, tmp_path: Path
) -> None:
    firewall.load({**POLICY, **trusting(tier="medium")})
    own, remote = lab.carrier.address4, lab.switch.address_for(lab.carrier)
    flags = ["-m", str(CALLS), "-r", "10", "-i", own, "-mi", own, "-nostdin", "-timeout", "15s"]
    sipp = lab.carrier.popen(
        ["sipp", "-sf", str(CALL), *flags, f"{remote}:{PORT}"], cwd=str(tmp_path)
    )
    victim = lab.switch.address_for(lab.attacker)
    payload = sip.request(method, source=lab.attacker.address4, destination=victim)
    lab.attacker.spoof_udp(strangers(STRANGERS), victim, PORT, PORT, payload, pps=STRANGERS_RATE)
    _, errors = sipp.communicate(timeout=20)
    assert sipp.returncode == 0, errors
    registrar.settle()
    # One INVITE, one ACK and one BYE for every call: nothing was sent twice and nothing lost.
    assert firewall.counted("entry.udp", "ip") == STRANGERS + 3 * CALLS
    calls = [each.method for each in registrar.verdicts(200, own)]
    assert Counter(calls) == {"INVITE": CALLS, "ACK": CALLS, "BYE": CALLS}
    # The cap on all strangers together held, and what it let in was turned away.
    let_in = [each for each in registrar.verdicts() if each.source != own]
    assert {each.status for each in let_in} == {401 if method == "REGISTER" else 407}
    assert firewall.counted("aggregate.noted", "ip") > 0
