"""What a test holds: sinks, sockets and connections that live in an agent."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from lab.channel import Channel, Json
    from lab.replies import Reply

Family: TypeAlias = Literal["ip", "ip6"]
Payloads: TypeAlias = bytes | Sequence[bytes]


def family_of(address: str) -> Family:
    return "ip6" if ip_address(address).version == 6 else "ip"


def encoded(payload: bytes) -> str:
    return b64encode(payload).decode()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One datagram, or one segment of a TCP connection (numbered from 1)."""

    source: str
    source_port: int
    payload: bytes
    destination: str = ""
    connection: int = 0


def _arrivals(records: list[dict[str, Any]]) -> list[Arrival]:
    return [Arrival(**{**each, "payload": b64decode(each["payload"])}) for each in records]


class Sink:
    """A listener on one port of a node, on all its addresses."""

    def __init__(self, channel: Channel, number: int, port: int) -> None:
        self.port = port
        self._channel = channel
        self._number = number

    def count(self) -> int:
        """Return how many datagrams or segments have arrived since the start or `clear`."""
        return int(self._ask("sink_state")["total"])

    def kinds(self) -> dict[str, int]:
        """Return the same by SIP method; responses are `SIP/2.0`, the rest `other`."""
        return dict(self._ask("sink_state")["kinds"])

    def connections(self) -> int:
        """Return how many TCP connections were accepted; `settle` first, accepting takes time."""
        return int(self._ask("sink_state")["connections"])

    def arrivals(self) -> list[Arrival]:
        """Return what arrived, oldest first, up to the sink's `keep`."""
        return _arrivals(self._ask("sink_records"))

    def wait(self, count: int = 1, timeout: float = 5.0) -> list[Arrival]:
        """Return the arrivals as soon as there are `count`; raise TimeoutError otherwise."""
        if not self._ask("sink_wait", count=count, timeout=timeout):
            msg = f"{self.count()} of {count} arrived at port {self.port} within {timeout} s"
            raise TimeoutError(msg)
        return self.arrivals()

    def settle(self, quiet: float = 0.05, timeout: float = 10.0) -> int:
        """Return the count once nothing arrived for `quiet` seconds."""
        if not self._ask("sink_settle", quiet=quiet, timeout=timeout):
            msg = f"packets still arrive at port {self.port} after {timeout} s"
            raise TimeoutError(msg)
        return self.count()

    def clear(self) -> None:
        self._ask("sink_clear")

    def behave(self, reply: Reply) -> None:
        """Answer differently from now on; see `lab.replies` for what can be asked."""
        self._ask("sink_behave", reply=reply)

    def close(self) -> None:
        self._ask("sink_close")

    def _ask(self, op: str, **arguments: Json) -> Json:
        return self._channel.ask(op, sink=self._number, **arguments)


class UdpSocket:
    """A client that keeps its source port; one kernel socket per family."""

    def __init__(
        self, channel: Channel, key: str, source_port: int | None, source: str | None
    ) -> None:
        self.source_port = source_port
        self._channel = channel
        self._key = key
        self._source = source
        self._unanswered = 0

    def send(self, destination: str, port: int, payload: bytes) -> None:
        self.send_many(destination, port, [payload])

    def send_many(
        self, destination: str, port: int, payloads: Sequence[bytes], *, gap: float = 0.0
    ) -> None:
        self.source_port = self._channel.ask(
            "udp_send",
            key=self._key,
            family=family_of(destination),
            source=self._source,
            source_port=self.source_port,
            destination=destination,
            port=port,
            payloads=[encoded(each) for each in payloads],
            gap=gap,
        )
        self._unanswered += len(payloads)

    def replies(self, timeout: float = 0.5, count: int | None = None) -> list[Arrival]:
        """Return what came back, after `count` datagrams (default: one per sent) or `timeout`."""
        expected = self._unanswered if count is None else count
        self._unanswered = 0
        answer = self._channel.ask("udp_replies", key=self._key, timeout=timeout, count=expected)
        return _arrivals(answer)

    def close(self) -> None:
        self._channel.ask("udp_close", key=self._key)


class TcpConnection:
    """An open connection; a reset by the peer surfaces as ConnectionResetError."""

    def __init__(self, channel: Channel, number: int, source_port: int) -> None:
        self.source_port = source_port
        self.ended = False
        self._channel = channel
        self._number = number

    def send(self, payload: bytes) -> None:
        self._channel.ask("tcp_send", connection=self._number, payload=encoded(payload))

    def received(self, timeout: float = 0.5, minimum: int = 1) -> bytes:
        """Return at least `minimum` bytes, or fewer after `timeout` or when the peer `ended`."""
        answer = self._channel.ask(
            "tcp_received", connection=self._number, timeout=timeout, minimum=minimum
        )
        self.ended = bool(answer["ended"])
        return b64decode(answer["data"])

    def close(self) -> None:
        self._channel.ask("tcp_close", connection=self._number)
