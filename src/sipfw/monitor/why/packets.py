"""The packets that `sipfw why` asks about: what a source would send, byte by byte."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.match import CtState, L4Proto, Ports
from sipfw.simulate.packet import Packet, TcpFlag

if TYPE_CHECKING:
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.match import PortRange
    from sipfw.ruleset.model import Ruleset

REGISTER = "REGISTER"
USUAL_METHODS = ("OPTIONS", REGISTER, "INVITE")

# A banned source may ask to log in more often than it may try a password.
_LOGIN = "REGISTER with a password"
_CREDENTIALS = 'Authorization: Digest username="user"\r\n'

# The rules by which the entry chain finds SIP.
_ENTRIES = {"udp": "entry.udp", "tcp": "entry.tcp", "tls": "entry.encrypted"}
# Those by which it finds RTP: judged, or let in.
_MEDIA = frozenset({"media.guard", "host.media"})


class PacketTransport(StrEnum):
    """What a source may speak; `ws` is WebSocket with or without TLS."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    WS = "ws"


@dataclass(frozen=True, slots=True)
class PacketQuestion:
    """Who sends what. None means: not known (`source_port`), the usual (all others).

    `local`: the source is this host itself. `interface` is where its packets come in.
    """

    source: IpAddress
    source_port: int | None = None
    to_port: int | None = None
    transport: PacketTransport | None = None
    method: str | None = None
    user_agent: str | None = None
    payload: bytes | None = None
    local: bool = False
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One packet and what to call it; `opens` marks the one that all others depend on."""

    title: str
    packet: Packet
    method: str | None = None
    opens: bool = False


def sip_ports(ruleset: Ruleset, transport: PacketTransport) -> tuple[PortRange, ...]:
    """Return the ports on which this firewall expects SIP over a transport."""
    wanted = _ENTRIES.get(transport.value, "entry.encrypted")
    return tuple(
        item
        for chain in ruleset.chains
        if chain.base is not None
        for rule in chain.rules
        if rule.id == wanted
        for match in rule.matches
        if isinstance(match, Ports)
        for item in match.ranges
    )


def is_sip(ruleset: Ruleset, transport: PacketTransport, port: int) -> bool:
    """Tell whether a port is one of SIP over a transport."""
    return any(item.first <= port <= item.last for item in sip_ports(ruleset, transport))


def is_media(ruleset: Ruleset, port: int) -> bool:
    """Tell whether a UDP port is one of RTP."""
    return any(
        item.first <= port <= item.last
        for chain in ruleset.chains
        if chain.base is not None
        for rule in chain.rules
        if rule.id in _MEDIA
        for match in rule.matches
        if isinstance(match, Ports)
        for item in match.ranges
    )


def completed(question: PacketQuestion, ruleset: Ruleset) -> PacketQuestion:
    """Fill in transport and port: the usual ones. Raises BackendError where there are none."""
    port, transport = question.to_port, question.transport
    if transport is None:
        fitting = (each for each in PacketTransport if port is None or is_sip(ruleset, each, port))
        usable = (each for each in fitting if sip_ports(ruleset, each))
        other = port is not None and not is_media(ruleset, port)
        transport = next(usable, PacketTransport.TCP if other else PacketTransport.UDP)
    if port is None:
        ranges = sip_ports(ruleset, transport)
        if not ranges:
            raise BackendError(
                f"this firewall knows no SIP over {transport}", hint="name a port with --to-port"
            )
        port = ranges[0].first
    return replace(question, transport=transport, to_port=port)


def ways_to(question: PacketQuestion, ruleset: Ruleset) -> tuple[PacketTransport | None, ...]:
    """Return the transports to ask about: a port that is named alone has UDP and TCP."""
    if question.transport is not None or question.to_port is None:
        return (question.transport,)
    first = completed(question, ruleset).transport
    if first is not PacketTransport.UDP:
        return (first, PacketTransport.UDP)
    streams = (each for each in PacketTransport if each is not PacketTransport.UDP)
    sip = (each for each in streams if is_sip(ruleset, each, question.to_port))
    return (first, next(sip, PacketTransport.TCP))


def asking(
    question: PacketQuestion, transport: PacketTransport, method: str, ruleset: Ruleset
) -> PacketQuestion | None:
    """Return the question about SIP over another transport or with another method.

    None where this firewall knows no SIP over the transport.
    """
    if not sip_ports(ruleset, transport):
        return None
    port = question.to_port
    kept = transport is question.transport and port is not None and is_sip(ruleset, transport, port)
    return completed(
        replace(
            question,
            transport=transport,
            to_port=port if kept else None,
            method=method,
            payload=None,
        ),
        ruleset,
    )


def messages(question: PacketQuestion, ruleset: Ruleset) -> list[Message]:
    """Return the packets of a completed question, in the order in which they would be sent."""
    transport, port = question.transport, question.to_port
    if transport is None or port is None:
        raise AssertionError("a question is completed first")
    proto = L4Proto.UDP if transport is PacketTransport.UDP else L4Proto.TCP
    packet = Packet(
        question.source,
        None,
        IpProto(proto.value),
        question.source_port,
        port,
        in_interface=question.interface,
        state=CtState.NEW,
        local=question.local,
    )
    said = [
        Message(title, _later(replace(packet, payload=payload)), method)
        for title, method, payload in _payloads(question, readable=is_sip(ruleset, transport, port))
    ]
    if proto is L4Proto.UDP:
        return said or [Message("RTP" if is_media(ruleset, port) else "a datagram", packet)]
    first = replace(packet, flags=frozenset({TcpFlag.SYN}), payload=b"")
    return [Message("a connection", first, opens=True), *said]


def _later(packet: Packet) -> Packet:
    """Return a message as it is sent: over TCP on the connection that stands by then."""
    if packet.protocol is IpProto.UDP:
        return packet
    return replace(packet, flags=frozenset({TcpFlag.ACK}), state=CtState.ESTABLISHED)


def _payloads(
    question: PacketQuestion, *, readable: bool
) -> list[tuple[str, str | None, bytes | None]]:
    """Return title, method and bytes of each message."""
    if question.payload is not None:
        return [(f"the file's {len(question.payload):,} bytes", None, question.payload)]
    if not readable:
        return []
    if question.transport in {PacketTransport.TLS, PacketTransport.WS}:
        return [("what comes on the connection", None, None)]
    methods = USUAL_METHODS if question.method is None else (question.method,)
    found: list[tuple[str, str | None, bytes | None]] = []
    for method in methods:
        found.append((method, method, _request(method, question)))
        if method == REGISTER:
            found.append((_LOGIN, method, _request(method, question, _CREDENTIALS)))
    return found


def _request(method: str, question: PacketQuestion, more: str = "") -> bytes:
    """Return a request without a word too many: any could be a scanner's."""
    agent = "" if question.user_agent is None else f"User-Agent: {question.user_agent}\r\n"
    text = (
        f"{method} sip:user@example.invalid SIP/2.0\r\n"
        f"From: <sip:user@example.invalid>\r\n"
        f"To: <sip:user@example.invalid>\r\n"
        f"CSeq: 1 {method}\r\n"
        f"{more}{agent}Content-Length: 0\r\n\r\n"
    )
    return text.encode("utf-8", "surrogateescape")
