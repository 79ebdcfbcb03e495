"""The rows of the benchmark: which packet, from how many sources; knows SIP and no firewall."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from functools import partial

from lab import sip

SWITCH = "192.0.2.1"
CARRIER = "203.0.113.10"
MEDIA_GATEWAY = "203.0.113.77"
BANNED = "198.19.0.9"
# RFC 2544 keeps 198.18.0.0/15 for benchmarks; no documentation network holds 65,536 addresses.
FLOOD = "198.18.0.0"
FLOOD_SOURCES = 65536
# No network of 64.0.0.0/3 is private, for tests or refused as a source.
EVERYBODY = "64.0.0.0"
EVERYBODY_SOURCES = 1 << 29

SIP_PORT = 5060
MEDIA_PORT = 12000
MEDIA_SOURCE_PORT = 14000

_IP_AND_UDP = 28
_SIP_PACKET = 430
_RTP_PAYLOAD = 172


@dataclass(frozen=True, slots=True)
class PacketClass:
    """One kind of traffic. `answered`: the switch has replied, as in a real call.

    `repeated`: the same packets came half a second before, as what phones repeat. `rate`: so many
    a second, for one second; otherwise as fast as they can be injected.
    """

    name: str
    source: str
    payload: bytes
    attack: bool = True
    sources: int = 1
    source_port: int = SIP_PORT
    port: int = SIP_PORT
    repeated: bool = False
    rate: int | None = None

    @property
    def answered(self) -> bool:
        """Tell whether the flow is a real dialogue; a flood's sources are mostly invented."""
        return not self.attack

    def frame(self, device: bytes) -> bytes:
        """Return the Ethernet frame; no UDP checksum, as if the card had checked it."""
        length = _IP_AND_UDP + len(self.payload)
        addresses = socket.inet_aton(self.source) + socket.inet_aton(SWITCH)
        return b"".join(
            [
                struct.pack("!6s6sH", device, b"\x02\0\0\0\0\x02", 0x0800),
                # The injector writes the header checksum.
                struct.pack("!BBHHHBBH", 0x45, 0, length, 1, 0x4000, 64, socket.IPPROTO_UDP, 0),
                addresses,
                struct.pack("!4H", self.source_port, self.port, length - 20, 0),
                self.payload,
            ]
        )


def _message(method: str, source: str, user_agent: str = "Grandstream GXP2170 1.0.11.6") -> bytes:
    """Return a request of exactly the wanted size: a header makes up what is missing."""
    build = partial(
        sip.request,
        method,
        source=source,
        destination=SWITCH,
        user_agent=user_agent,
        call_id=f"3848276298220188511@{source}",
        branch="z9hG4bK1e8a25c91d3d7f02",
        from_tag="1928301774",
    )
    missing = _SIP_PACKET - _IP_AND_UDP - len(build()) - len("Subject: \r\n")
    return build(extra_headers=[("Subject", "b" * missing)])


def _rtp() -> bytes:
    header = struct.pack("!BBHII", 0x80, 0, 4711, 160, 0x1234ABCD)
    return header + bytes(range(160))


def _flood(name: str, payload: bytes) -> PacketClass:
    return PacketClass(f"{name}, 65k sources", FLOOD, payload, sources=FLOOD_SOURCES)


def packet_classes() -> tuple[PacketClass, ...]:
    """Return every row; each row with one source has its own, so that none bans another's."""
    return (
        PacketClass("trusted OPTIONS", CARRIER, _message("OPTIONS", CARRIER), attack=False),
        PacketClass(
            "trusted INVITE",
            CARRIER,
            _message("INVITE", CARRIER),
            attack=False,
        ),
        PacketClass(
            "RTP",
            MEDIA_GATEWAY,
            _rtp(),
            attack=False,
            source_port=MEDIA_SOURCE_PORT,
            port=MEDIA_PORT,
        ),
        PacketClass("OPTIONS, 1 source", "198.19.0.1", _message("OPTIONS", "198.19.0.1")),
        _flood("OPTIONS", _message("OPTIONS", FLOOD)),
        PacketClass("REGISTER, 1 source", "198.19.0.2", _message("REGISTER", "198.19.0.2")),
        _flood("REGISTER", _message("REGISTER", FLOOD)),
        PacketClass(
            "REGISTER, new sources",
            EVERYBODY,
            _message("REGISTER", EVERYBODY),
            sources=EVERYBODY_SOURCES,
        ),
        PacketClass(
            "REGISTER, new sources, 20,000/s",
            EVERYBODY,
            _message("REGISTER", EVERYBODY),
            sources=EVERYBODY_SOURCES,
            rate=20_000,
        ),
        PacketClass(
            "REGISTER, new sources again",
            EVERYBODY,
            _message("REGISTER", EVERYBODY),
            sources=EVERYBODY_SOURCES,
            repeated=True,
        ),
        _flood("INVITE", _message("INVITE", FLOOD)),
        _flood("scanner UA", _message("REGISTER", FLOOD, "friendly-scanner")),
        PacketClass("banned source", BANNED, _message("INVITE", BANNED)),
        _flood("garbage", b"\xff" * (_SIP_PACKET - _IP_AND_UDP)),
    )
