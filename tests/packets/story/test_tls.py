"""Row 7 with a real switch: what TLS hides is bounded by its volume, and nobody is framed there."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from packets.evidence.wire import syn
from packets.registrar import needs, password
from packets.story.account import NONCE, Account, md5
from packets.story.handset import Handset, Ledger
from packets.story.switchboard import REALM, TLS_PORT, Switchboard, target
from packets.story.ways import Stream, encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lab import Host, Lab
    from packets.evidence.wire import Wire
    from packets.firewall import Firewall

pytestmark = [pytest.mark.netns, needs("kamailio", "openssl")]

TWO_FORMS = pytest.mark.parametrize("firewall", ["legacy", "nftables"], indirect=True)
POLICY: Mapping[str, Any] = {"profile": "default", "signalling": {"tls": [TLS_PORT]}}
PER_CONNECTION, PER_SOURCE = 49152, 393216
# What a login over TLS has at least, all headers included, where it shares its record with others.
SMALLEST = 250
HOME, FAR, PROVIDER = "192.0.2.130", "198.51.100.140", "203.0.113.130"
KEYS = 24


@pytest.fixture
def switch(lab: Lab, firewall: Firewall, tmp_path: Path) -> Iterator[Switchboard]:
    firewall.load(POLICY)
    with Switchboard(lab, tmp_path, PROVIDER) as running:
        yield running


def connected(lab: Lab, wire: Wire, host: Host, address: str) -> Stream:
    """Connect and say hello; OSError where the firewall does not let it."""
    opened = wire.tcp(host, (address, 0), target(lab, tls=True))
    return Stream(wire.keep(encrypted(opened)))


def phone(lab: Lab, wire: Wire, user: str, ledger: Ledger, address: str = HOME) -> Handset:
    account = Account(user, address, target(lab, tls=True), "TLS")
    return Handset(account, connected(lab, wire, lab.office, address), ledger)


def smallest_login(user: str, number: int, nonce: str | None, response: str = "") -> bytes:
    """Write as little as a login can be; without a nonce it asks for one."""
    to = f"sip:{user}@a"
    digest = f'username="{user}",realm="{REALM}",nonce="{nonce}",uri="a",response="{response}"'
    lines = [
        "REGISTER sip:a SIP/2.0",
        f"v:SIP/2.0/TLS a;branch=z9hG4bK{number:x}",
        f"f:{to};tag=1",
        f"t:{to}",
        f"i:{number:x}",
        "CSeq:1 REGISTER",
        *([f"Authorization:Digest {digest}"] if nonce else []),
        "l:0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def guess(number: int, nonce: str) -> bytes:
    return smallest_login("150", number, nonce, f"{number:032x}")


def nonce_of(stream: Stream) -> str:
    """Get a nonce; the same form with the right digest is accepted."""
    stream.send(smallest_login("151", 1, None))
    found = NONCE.search((stream.receive(1.0) or b"").decode())
    assert found is not None
    secret = md5(f"151:{REALM}:{password('151')}")
    stream.send(smallest_login("151", 2, found[1], md5(f"{secret}:{found[1]}:{md5('REGISTER:a')}")))
    assert (stream.receive(1.0) or b"").startswith(b"SIP/2.0 200 ")
    return found[1]


@TWO_FORMS
def test_a_phone_works_over_tls(
    lab: Lab, firewall: Firewall, wire: Wire, switch: Switchboard
) -> None:
    ledger = Ledger()
    called = phone(lab, wire, "101", ledger)
    caller = phone(lab, wire, "100", ledger)
    assert called.register(60)
    assert caller.register(60)
    caller.watch([str(100 + n) for n in range(KEYS)])
    # Both ends are played in turn, so it calls who answers everybody.
    for _ in range(5):
        answer = caller.ask(caller.account.request("INVITE", "ivr"), {200})
        assert answer is not None
    print("\n" + ledger.table())  # noqa: T201
    assert ledger.lost == []
    assert firewall.counted("entry.encrypted", "ip") > 0
    assert len(switch.verdicts(HOME, kind="login", refused=False)) == 2 + KEYS


def guess_on(stream: Stream, numbers: Iterator[int], nonce: str) -> None:
    """Put some into each record, as its frame and the packet's headers count, too."""
    while not stream.over:
        some = itertools.islice(numbers, 8)
        stream.send(b"".join(guess(number, nonce) for number in some))
        stream.ended()


@TWO_FORMS
def test_a_guesser_on_tls_is_bounded(lab: Lab, wire: Wire, switch: Switchboard) -> None:
    """All connections of a source that it can have in a minute, each as full as it may be."""
    numbers = itertools.count()
    nonce = nonce_of(connected(lab, wire, lab.office, HOME))
    started = time.monotonic()
    refused = 0
    while refused < 3 and time.monotonic() < started + 15:
        try:
            stream = connected(lab, wire, lab.attacker, FAR)
        except OSError:
            refused += 1
            continue
        guess_on(stream, numbers, nonce)
        stream.socket.close()
    switch.settle()
    seconds = time.monotonic() - started
    by_port: dict[int, int] = {}
    for each in switch.guesses(FAR):
        by_port[each.port] = by_port.get(each.port, 0) + 1
    worst, total = max(by_port.values()), sum(by_port.values())
    size = len(guess(1000, nonce))
    print(  # noqa: T201
        f"\n{size} bytes each; in {seconds:.1f} s judged on one connection {worst}"
        f" of at most {PER_CONNECTION // SMALLEST}, of one source {total} on {len(by_port)}"
        f" connections, of at most {PER_SOURCE // SMALLEST}"
    )
    assert 0 < worst <= PER_CONNECTION // SMALLEST
    assert total <= PER_SOURCE // SMALLEST
    assert seconds < 60


@TWO_FORMS
def test_a_framed_customer_is_in_at_once(
    lab: Lab, firewall: Firewall, wire: Wire, switch: Switchboard
) -> None:
    ledger = Ledger()
    open_one = phone(lab, wire, "100", ledger)
    assert open_one.register(60)
    forger = Account("150", HOME, target(lab))
    headers = [("Authorization", 'Digest username="150", realm="sip.example", nonce="0", uri="x"')]
    forged = forger.request("REGISTER", headers=[(headers[0][0], headers[0][1] + ', response="0"')])
    lab.attacker.spoof_udp([HOME] * 12, target(lab)[0], range(30000, 30012), 5060, forged, pps=200)
    raw = wire.raw(lab.attacker, target(lab)[0])
    for number in range(160):
        raw.sendto(syn((HOME, 30000 + number), target(lab, tls=True)), (target(lab)[0], 0))
    switch.settle()
    banned = firewall.contains("banned", HOME)
    started = time.monotonic()
    again = phone(lab, wire, "101", ledger)
    assert again.register(60)
    seconds = time.monotonic() - started
    assert open_one.register(60)
    print(f"\nbanned for datagrams: {banned}; in again after {seconds:.2f} s")  # noqa: T201
    assert banned
    assert seconds < 1
    assert ledger.lost == []
