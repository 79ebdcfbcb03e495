"""The lab's process inside one namespace: `python -m lab.agent`, one JSON object per line.

A request is `{"op": name, ...}`, its answer `{"ok": value}` or `{"error": text, "errno": n}`;
payloads are base64.  One command at a time; listeners run beside it in threads.  The agent ends
when its standard input does, so it cannot outlive the test that started it.
"""

from __future__ import annotations

import errno
import json
import resource
import socket
import sys
import time
from base64 import b64decode, b64encode
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lab import icmp, rawpackets
from lab.listeners import FAMILIES, Listener, TcpListener, UdpListener, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Json: TypeAlias = dict[str, Any]

# Never used twice, so that a handle from before a reset cannot reach what came after it.
numbers = count(1)
listeners: dict[int, Listener] = {}
udp_sockets: dict[str, socket.socket] = {}
tcp_sockets: dict[int, socket.socket] = {}


def listen(request: Json) -> int:
    factory = {"udp": UdpListener, "tcp": TcpListener}[request["protocol"]]
    number = next(numbers)
    listeners[number] = factory(
        request["port"], request["family"], request["reply"], request["keep"]
    )
    return number


def sink_state(request: Json) -> Json:
    listener = listeners[request["sink"]]
    return {
        "total": listener.recorder.total(),
        "kinds": listener.recorder.kinds(),
        "connections": listener.accepted if isinstance(listener, TcpListener) else 0,
    }


def sink_records(request: Json) -> list[Json]:
    records = listeners[request["sink"]].recorder.records()
    return [{**record._asdict(), "payload": _encoded(record.payload)} for record in records]


def sink_wait(request: Json) -> bool:
    return listeners[request["sink"]].recorder.wait(request["count"], request["timeout"])


def sink_settle(request: Json) -> bool:
    listener = listeners[request["sink"]]
    return listener.recorder.settle(request["quiet"], request["timeout"], listener.pending)


def sink_clear(request: Json) -> None:
    listeners[request["sink"]].recorder.clear()


def sink_behave(request: Json) -> None:
    listeners[request["sink"]].behave(request["reply"])


def sink_close(request: Json) -> None:
    listeners.pop(request["sink"]).close()


def udp_send(request: Json) -> int:
    """Send datagrams from the socket named by `key`, opening it on first use."""
    key = f"{request['key']}/{request['family']}"
    if key not in udp_sockets:
        udp_sockets[key] = _udp_socket(request)
    target = (request["destination"], request["port"])
    for index, payload in enumerate(request["payloads"]):
        if index and request["gap"]:
            time.sleep(request["gap"])
        udp_sockets[key].sendto(b64decode(payload), target)
    return int(udp_sockets[key].getsockname()[1])


def _udp_socket(request: Json) -> socket.socket:
    opened = socket.socket(FAMILIES[request["family"]], socket.SOCK_DGRAM)
    if opened.family == socket.AF_INET6:
        # The same client may hold the same port for IPv4.
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        opened.bind((request["source"] or "", request["source_port"] or 0))
    except OSError:
        opened.close()
        raise
    return opened


def udp_replies(request: Json) -> list[Json]:
    """Return what came back, once `count` datagrams are there or the time is over."""
    opened = _udp_of(request["key"])
    deadline = time.monotonic() + request["timeout"]
    replies: list[Json] = []
    while opened:
        patience = deadline - time.monotonic() if len(replies) < request["count"] else 0
        ready = readable(opened, patience)
        if not ready:
            break
        for each in ready:
            payload, peer = each.recvfrom(65535)
            reply = {"source": peer[0], "source_port": peer[1], "payload": _encoded(payload)}
            replies.append({**reply, "destination": "", "connection": 0})
    return replies


def udp_close(request: Json) -> None:
    for family in FAMILIES:
        opened = udp_sockets.pop(f"{request['key']}/{family}", None)
        if opened is not None:
            opened.close()


def _udp_of(key: str) -> list[socket.socket]:
    keys = [f"{key}/{family}" for family in FAMILIES]
    return [udp_sockets[each] for each in keys if each in udp_sockets]


def tcp_connect(request: Json) -> Json:
    opened = socket.socket(FAMILIES[request["family"]], socket.SOCK_STREAM)
    opened.settimeout(request["timeout"])
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        opened.bind((request["source"] or "", request["source_port"] or 0))
        opened.connect((request["destination"], request["port"]))
    except OSError:
        opened.close()
        raise
    number = next(numbers)
    tcp_sockets[number] = opened
    return {"connection": number, "source_port": opened.getsockname()[1]}


def tcp_send(request: Json) -> None:
    tcp_sockets[request["connection"]].sendall(b64decode(request["payload"]))


def tcp_received(request: Json) -> Json:
    """Return at least `minimum` bytes, or what came before the end or the time limit."""
    opened = tcp_sockets[request["connection"]]
    deadline = time.monotonic() + request["timeout"]
    data, ended = b"", False
    while not ended:
        patience = deadline - time.monotonic() if len(data) < request["minimum"] else 0
        if not readable([opened], patience):
            break
        piece = opened.recv(65535)
        data += piece
        ended = not piece
    return {"data": _encoded(data), "ended": ended}


def tcp_close(request: Json) -> None:
    opened = tcp_sockets.pop(request["connection"], None)
    if opened is not None:
        opened.close()


def spoof(request: Json) -> int:
    builder = _builder(request)
    arguments = request["destination"], request["sources"], request["sports"], request["pps"]
    return rawpackets.spoof(builder, *arguments)


def fragments(request: Json) -> int:
    builder = _builder(request)
    arguments = request["destination"], request["source"], request["sport"], request["splits"]
    return rawpackets.send_fragments(builder, *arguments)


def icmp_send(request: Json) -> None:
    icmp.send(request["destination"], request["kind"], request["code"], b64decode(request["body"]))


def icmp_ping(request: Json) -> bool:
    return icmp.ping(request["destination"], request["timeout"])


def icmp_too_big(request: Json) -> None:
    icmp.too_big(request["destination"], request["mtu"], b64decode(request["quoted"]))


def reset(_request: Json) -> None:
    """Close every listener, socket and connection."""
    for listener in listeners.values():
        listener.close()
    for opened in (*udp_sockets.values(), *tcp_sockets.values()):
        opened.close()
    for table in (listeners, udp_sockets, tcp_sockets):
        table.clear()


def counters(_request: Json) -> dict[str, int]:
    """Return the kernel's own counts of this namespace, such as `UdpOutDatagrams`."""
    lines = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()]
    found = {}
    # Each protocol has a line of names and below it a line of values.
    for (title, *names), (_, *values) in zip(lines[::2], lines[1::2], strict=True):
        prefix = title.removesuffix(":")
        found.update({prefix + name: int(value) for name, value in zip(names, values, strict=True)})
    for line in Path("/proc/self/net/snmp6").read_text().splitlines():
        name, value = line.split()
        found[name] = int(value)
    return found


def _builder(request: Json) -> rawpackets.DatagramBuilder:
    payload = b64decode(request["payload"])
    return rawpackets.DatagramBuilder(request["destination"], request["dport"], payload)


def _encoded(payload: bytes) -> str:
    return b64encode(payload).decode()


OPERATIONS: Sequence[Callable[[Json], Any]] = (
    listen, sink_state, sink_records, sink_wait, sink_settle, sink_clear, sink_behave, sink_close,
    udp_send, udp_replies, udp_close, tcp_connect, tcp_send, tcp_received, tcp_close,
    spoof, fragments, icmp_send, icmp_ping, icmp_too_big, counters, reset,
)  # fmt: skip


def answer(line: str) -> Json:
    """Carry out one request; every expected failure becomes an answer."""
    request = json.loads(line)
    by_name = {operation.__name__: operation for operation in OPERATIONS}
    try:
        return {"ok": by_name[request["op"]](request)}
    except TimeoutError as failure:
        # A timed-out connect carries no errno when Python's own timer ended it.
        return {"error": str(failure), "errno": errno.ETIMEDOUT}
    except OSError as failure:
        return {"error": failure.strerror or str(failure), "errno": failure.errno}
    except ValueError as failure:
        return {"error": str(failure), "errno": None}


def main() -> None:
    # A test may hold thousands of client ports; the usual soft limit is 1024 descriptors.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
