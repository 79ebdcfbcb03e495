"""Telephones with ears: make or take calls with early media, speak numbered RTP, and say what came.

    calls.py caller SIP MEDIA TARGET COUNT SPEAKS     COUNT calls at once to user@TARGET
    calls.py callee SIP MEDIA                         take calls until the input ends

SIP is the address that signals, MEDIA the one that speaks RTP, which may be another. A caller
SPEAKS `at-once`, as soon as it knows where to, or `answered`; a callee plays early media before it
answers and goes on after that. The last line printed is JSON: of each call how many packets were
`sent` and how many `arrived`, and in `came` the numbers of those that the other end has said.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

SECONDS = 2.0
EARLY = 0.6
GAP = 0.02
SDP = re.compile(rb"^c=IN IP\d (\S+)\r\n|^m=audio (\d+)", re.MULTILINE)
TAG = ";tag=far"
# G.711 that survives any number of codecs, with the number of the packet in digits.
MARK = re.compile(rb"rtp(\d{6})!")
LONGEST = 9
# Only those that a dialogue needs to come back.
COPIED = ("via", "record-route", "from", "call-id", "cseq")


class Socket(asyncio.DatagramProtocol):
    """A UDP socket that hands what it gets to a function."""

    def __init__(self, heard: Any) -> None:
        self._heard = heard

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._heard(data, addr)


async def bound(address: str, port: int, heard: Any) -> Any:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Socket(heard), local_addr=(address, port)
    )
    return transport


@dataclass
class Voice:
    """One end of the audio: says numbers at the pace of speech, and keeps those it hears."""

    address: str
    sent: int = 0
    came: list[int] = field(default_factory=list)
    to: tuple[str, int] | None = None
    over: bool = False
    # Packets, whatever they say: a switch plays tones of its own.
    arrived: int = 0
    _said: bytes = b""

    async def open(self) -> None:
        self.socket = await bound(self.address, 0, self._hear)
        self.port = self.socket.get_extra_info("sockname")[1]

    def _hear(self, data: bytes, _: Any) -> None:
        # A switch that mixes or transcodes cuts the audio anew, at any byte.
        self._said += data[12:]
        for found in MARK.finditer(self._said):
            self.came.append(int(found[1]))
        self._said = self._said[-LONGEST:].rpartition(b"!")[2]
        self.arrived += 1

    async def speak(self) -> None:
        while not self.over:
            self.socket.sendto(_packet(self.sent), self.to)
            self.sent += 1
            await asyncio.sleep(GAP)

    def sdp(self) -> str:
        family = "IP6" if ":" in self.address else "IP4"
        return (
            f"v=0\r\no=- 1 1 IN {family} {self.address}\r\ns=-\r\n"
            f"c=IN {family} {self.address}\r\nt=0 0\r\nm=audio {self.port} RTP/AVP 0\r\n"
            "a=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
        )

    def learn(self, message: bytes) -> None:
        found = SDP.findall(message)
        if len(found) >= 2:
            self.to = (found[0][0].decode(), int(found[1][1]))

    def said(self) -> dict[str, Any]:
        return {"sent": self.sent, "came": self.came, "arrived": self.arrived}


def _packet(number: int) -> bytes:
    header = b"\x80\x00" + (number & 0xFFFF).to_bytes(2, "big") + (160 * number).to_bytes(4, "big")
    return header + f"rtp{number:06d}!".encode().center(160, b"\xd5")


def headers(message: bytes) -> list[tuple[str, str]]:
    lines = message.split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [
        (name.strip().lower(), value.strip())
        for name, _, value in (x.partition(":") for x in lines)
    ]


class Caller:
    """One call, from its own port."""

    def __init__(self, number: int, sip: str, media: str, target: str, speaks: str) -> None:
        self.number, self.sip, self.speaks = number, sip, speaks
        self.user, _, self.target = target.rpartition("@")
        self.voice = Voice(media)
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def call(self) -> dict[str, Any]:
        await self.voice.open()
        self.socket = await bound(self.sip, 0, lambda data, _: self.answers.put_nowait(data))
        self.port = self.socket.get_extra_info("sockname")[1]
        self._send("INVITE", 1, self.voice.sdp())
        speaking: asyncio.Task[None] | None = None
        final = b""
        while not final:
            answer = await asyncio.wait_for(self.answers.get(), 5)
            self.voice.learn(answer)
            final = answer if answer[8:9] >= b"2" else b""
            if speaking is None and self.voice.to and (final or self.speaks == "at-once"):
                speaking = asyncio.ensure_future(self.voice.speak())
        self._send("ACK", 1, "", final)
        await asyncio.sleep(SECONDS)
        self.voice.over = True
        # What is under way still comes.
        await asyncio.sleep(0.3)
        self._send("BYE", 2, "", final)
        await asyncio.sleep(0.2)
        return {"status": final[8:11].decode(), **self.voice.said()}

    def _send(self, method: str, number: int, body: str, final: bytes = b"") -> None:
        known = headers(final)
        found = dict(known)
        host = f"[{self.sip}]" if ":" in self.sip else self.sip
        target = f"[{self.target}]" if ":" in self.target else self.target
        uri = found.get("contact", f"<sip:{self.user}@{target}>").split("<")[1].split(">")[0]
        routes = [value for name, value in known if name == "record-route"][::-1]
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{self.port};rport;branch=z9hG4bK{self.number}{method}",
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in routes),
            f"From: <sip:caller{self.number}@{host}>;tag=near{self.number}",
            f"To: {found.get('to', f'<sip:{self.user}@{target}>')}",
            f"Call-ID: call-{self.number}-{self.port}",
            f"CSeq: {number} {method}",
            f"Contact: <sip:caller@{host}:{self.port}>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.socket.sendto(("\r\n".join([*lines, "", ""]) + body).encode(), (self.target, 5060))


class Callee:
    """Takes every call."""

    def __init__(self, sip: str, media: str) -> None:
        self.sip, self.media = sip, media
        self.voices: dict[str, Voice] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def hear(self, data: bytes, peer: Any) -> None:
        known = dict(headers(data))
        if data.startswith(b"INVITE") and known["call-id"] not in self.voices:
            self.voices[known["call-id"]] = Voice(self.media)
            self._do(self._take(data, peer, self.voices[known["call-id"]]))
        elif data.startswith(b"BYE"):
            self.voices[known["call-id"]].over = True
            self._answer(data, peer, "200 OK")

    def _do(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _take(self, invite: bytes, peer: Any, voice: Voice) -> None:
        await voice.open()
        voice.learn(invite)
        self._answer(invite, peer, "183 Session Progress", voice.sdp())
        self._do(voice.speak())
        await asyncio.sleep(EARLY)
        self._answer(invite, peer, "200 OK", voice.sdp())
        await asyncio.sleep(SECONDS)
        voice.over = True

    def _answer(self, request: bytes, peer: Any, status: str, body: str = "") -> None:
        known = headers(request)
        host = f"[{self.sip}]" if ":" in self.sip else self.sip
        lines = [f"{name}: {value}" for name, value in known if name in COPIED]
        to = dict(known)["to"]
        lines += [
            f"To: {to}" if "tag=" in to else f"To: {to}{TAG}",
            f"Contact: <sip:100@{host}:5060>",
        ]
        lines += ["Content-Type: application/sdp"] if body else []
        lines += [f"Content-Length: {len(body)}"]
        self.socket.sendto(
            ("\r\n".join([f"SIP/2.0 {status}", *lines, "", ""]) + body).encode(), peer
        )

    async def serve(self) -> dict[str, Any]:
        self.socket = await bound(self.sip, 5060, self.hear)
        print("ready", flush=True)  # noqa: T201
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        return {"calls": [voice.said() for voice in self.voices.values()]}


async def make_calls(sip: str, media: str, target: str, count: str, speaks: str) -> dict[str, Any]:
    callers = [Caller(number, sip, media, target, speaks) for number in range(int(count))]
    calls = await asyncio.gather(*(each.call() for each in callers), return_exceptions=True)
    return {"calls": [x if isinstance(x, dict) else {"failed": repr(x)} for x in calls]}


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    work = make_calls(*words) if role == "caller" else Callee(*words).serve()
    print(json.dumps(asyncio.run(work)), flush=True)  # noqa: T201
