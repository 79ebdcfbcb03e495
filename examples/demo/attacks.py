"""The attacks, each from an address of its own so that none profits or suffers from another.

Three are the SIPVicious tools as shipped.  A tool that meets silence gives up after one packet, so
on the second round everything it sent on the first is sent again, byte for byte.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scene import ACCOUNTS, SIP_PORT, SWITCH_ADDRESSES, DemoError, Scene, tool

from lab import sip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE = 1.5  # seconds without a packet after which a tool has nothing more to say
LONGEST_RUN = 8.0  # a tool that is answered now and then would go on for minutes
REPLAY_GAP = 0.004
HIDDEN_REQUESTS = 50
GUESSES = 300
GUESS_GAP = 0.01
PHONE = "Yealink SIP-T46U 108.86.0.45"


@dataclass(frozen=True)
class Attack:
    """What is sent, from where, and how many packets of it may pass under the policy."""

    name: str
    source: str
    carry_out: Callable[[Scene, Attack], int]
    bounded_by_rate: bool = False
    counted: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How many requests left the attacker, how many the switch received, in how many seconds."""

    sent: int
    delivered: int
    seconds: float


def launch(scene: Scene, attack: Attack) -> Outcome:
    """Carry out one attack and count at both ends."""
    scene.attack_from(attack.source)
    scene.signalling.clear()
    started = time.monotonic()
    sent = attack.carry_out(scene, attack)
    scene.signalling.settle()
    seconds = time.monotonic() - started
    arrivals = [each for each in scene.signalling.arrivals() if each.source == attack.source]
    scene.recorded.setdefault(attack.name, arrivals)
    delivered = sum(attack.counted in (None, sip.kind(each.payload)) for each in arrivals)
    return Outcome(sent, delivered, seconds)


def _with_tool(*arguments: str) -> Callable[[Scene, Attack], int]:
    name, *options = arguments

    def carry_out(scene: Scene, attack: Attack) -> int:
        before = scene.sent_by_attacker()
        target = f"{scene.target}-{SWITCH_ADDRESSES}" if name == "svmap" else scene.target
        _run_until_silent(scene, [tool(name), *options, target])
        if scene.sent_by_attacker() == before:
            raise DemoError(f"{name} sent nothing")
        _replay(scene, attack)
        return scene.sent_by_attacker() - before

    return carry_out


def _run_until_silent(scene: Scene, command: Sequence[str]) -> None:
    program = scene.lab.attacker.popen(command, env={"HOME": str(scene.scratch)})
    sent, active = scene.sent_by_attacker(), time.monotonic()
    end = active + LONGEST_RUN
    while program.poll() is None and time.monotonic() < min(active + PATIENCE, end):
        time.sleep(0.05)
        if (now_sent := scene.sent_by_attacker()) != sent:
            sent, active = now_sent, time.monotonic()
    if program.poll() is None:
        program.terminate()
    program.wait()


def _replay(scene: Scene, attack: Attack) -> None:
    """Send what the switch received from this attack when it had no protection."""
    parts = defaultdict(list)
    for arrival in scene.recorded.get(attack.name, ()):
        parts[arrival.source_port, arrival.destination].append(arrival.payload)
    for (port, destination), payloads in parts.items():
        client = scene.lab.attacker.udp_socket(port, source=attack.source)
        client.send_many(destination, SIP_PORT, payloads, gap=REPLAY_GAP)
        client.close()


def _behind_an_answer(scene: Scene, attack: Attack) -> int:
    """Get one harmless request answered, then scan through the connection it made."""
    client = scene.lab.attacker.udp_socket(5070, source=attack.source)
    client.send(scene.target, SIP_PORT, _register(scene, attack))
    client.replies(timeout=0.3)
    scan = [
        sip.request(
            "OPTIONS",
            source=attack.source,
            destination=scene.target,
            source_port=5070,
            user_agent=agent,
        )
        for agent in ("friendly-scanner", PHONE) * HIDDEN_REQUESTS
    ]
    client.send_many(scene.target, SIP_PORT, scan, gap=REPLAY_GAP)
    client.close()
    return len(scan)


def _guess_passwords(scene: Scene, attack: Attack) -> int:
    """Try passwords as an ordinary phone would, from one port, with correct digests."""
    client = scene.lab.attacker.udp_socket(5062, source=attack.source)
    client.send(scene.target, SIP_PORT, _register(scene, attack))
    nonce = "unchallenged"
    for reply in client.replies(timeout=0.3):
        message = sip.parse(reply.payload)
        challenge = (message.header("www-authenticate") if message else None) or ""
        nonce = challenge.partition('nonce="')[2].partition('"')[0] or nonce
    guesses = [
        _register(scene, attack, cseq, _credentials(scene.target, nonce, f"secret{cseq}"))
        for cseq in range(2, GUESSES + 2)
    ]
    client.send_many(scene.target, SIP_PORT, guesses, gap=GUESS_GAP)
    client.close()
    return len(guesses) + 1


def _register(scene: Scene, attack: Attack, cseq: int = 1, credentials: str | None = None) -> bytes:
    headers = [("Authorization", credentials)] if credentials else []
    return sip.request(
        "REGISTER",
        source=attack.source,
        destination=scene.target,
        source_port=5062,
        user=ACCOUNTS[0],
        user_agent=PHONE,
        cseq=cseq,
        extra_headers=headers,
    )


def _credentials(target: str, nonce: str, password: str) -> str:
    def digest(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    account, realm, uri = ACCOUNTS[0], "lab.example", f"sip:{target}"
    secret, request = digest(f"{account}:{realm}:{password}"), digest(f"REGISTER:{uri}")
    return (
        f'Digest username="{account}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'response="{digest(f"{secret}:{nonce}:{request}")}", algorithm=MD5'
    )


ATTACKS = (
    Attack("svmap", "198.51.100.71", _with_tool("svmap")),
    Attack("svwar", "198.51.100.72", _with_tool("svwar", "-e1000-1199")),
    Attack("svcrack", "198.51.100.73", _with_tool("svcrack", "-u1000", "-r1-200", "-P5062")),
    Attack("scan behind an answer", "198.51.100.74", _behind_an_answer, counted="OPTIONS"),
    Attack("plain password guesser", "198.51.100.75", _guess_passwords, bounded_by_rate=True),
)
