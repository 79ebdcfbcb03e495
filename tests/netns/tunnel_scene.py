"""A switch into which people come through tunnels, a proxy and a login daemon nobody knows.

Tunnels that are programs run here for real, since the daemon that holds the device is what is
looked for; those of the kernel as far as it has them (VXLAN).
"""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab import Lab, namespaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab import Host, Node, TcpConnection

# Serves a tun device; its packets go out as UDP, as a TCP stream or as a bare IP protocol.
TUNNEL = """\
import fcntl, os, select, socket, struct, sys
mode, name, own, far, port, serves = sys.argv[1:]
port, serves = int(port), serves == "serves"
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH14x", name.encode(), 0x1001))
peer, head = None, 0
if mode == "udp":
    outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if serves: outer.bind(("0.0.0.0", port))
    else: peer = far, port
elif mode == "tcp":
    if serves:
        listening = socket.create_server((own, port))
        print("ready", flush=True)
        outer = listening.accept()[0]
    else: outer = socket.create_connection((far, port))
else:
    outer, peer, head = socket.socket(socket.AF_INET, socket.SOCK_RAW, port), (far, 0), 20
    outer.bind((own, 0))
print("ready", flush=True)
def exactly(size):
    data = b""
    while len(data) < size:
        more = outer.recv(size - len(data))
        if not more: sys.exit()
        data += more
    return data
while True:
    for ready in select.select([tun, outer], [], [])[0]:
        if ready == tun:
            packet = os.read(tun, 2000)
            if packet[0] >> 4 != 4: continue
            if mode == "tcp": outer.sendall(packet)
            elif peer: outer.sendto(packet, peer)
        elif mode == "tcp":
            start = exactly(20)
            os.write(tun, start + exactly(int.from_bytes(start[2:4], "big") - 20))
        else:
            packet, sender = outer.recvfrom(2000)
            if serves and mode == "udp": peer = sender
            os.write(tun, packet[head:])
"""

# A daemon by a name of its own that gives every connection a terminal with `cat` in it.
LOGIN = """\
import os, pathlib, pty, select, socket, sys
listening = socket.create_server(("0.0.0.0", int(sys.argv[1])))
pathlib.Path("/proc/self/comm").write_text(sys.argv[2])
print("ready", flush=True)
while True:
    connection = listening.accept()[0]
    if os.fork() == 0: break
    connection.close()
child, master = pty.fork()
if child == 0: os.execvp("cat", ["cat"])
while True:
    for ready in select.select([connection, master], [], [])[0]:
        if ready is connection: os.write(master, connection.recv(4096) or sys.exit())
        else: connection.sendall(os.read(master, 4096))
"""

SSHD = """\
import pathlib, socket, sys, threading
pathlib.Path("/proc/self/comm").write_text("sshd")
listening = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
def echo(connection):
    while data := connection.recv(4096): connection.sendall(data)
while True:
    threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()
"""

# What TLS proxies and port multiplexers do: one process holds both ends.
PROXY = """\
import pathlib, socket, sys, threading
pathlib.Path("/proc/self/comm").write_text("stunnel")
listening = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
def pump(one, other):
    while data := one.recv(4096): other.sendall(data)
while True:
    outer = listening.accept()[0]
    inner = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    for ends in ((outer, inner), (inner, outer)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
"""

ROLES = ("serves", "dials")
_questions = count(1)

INNER = "198.51.100.0/24"


def start(node: Node, program: str, *words: str) -> None:
    """Run it until the node is reset, and wait until it is ready."""
    running = node.popen([sys.executable, "-c", program, *words])
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"


class TunnelScene:
    """Office and carrier, each beside the switch; each tunnel has a /28 of its own."""

    def __init__(self) -> None:
        self.lab = Lab(hosts=("office", "carrier"))
        self.switch = self.lab.switch

    def __enter__(self) -> Self:
        self.lab.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.lab.close()
        for node in self.lab.nodes:
            self._control(node).unlink(missing_ok=True)

    def inner(self, number: int, end: int) -> str:
        """Return an address within tunnel `number`: end 1 is the switch, 2 the client."""
        return f"198.51.100.{16 * number + end}"

    def program(
        self, number: int, mode: str, port: int, host: Host, *, dials: bool = False
    ) -> None:
        """Lead the tun device `tun<number>` of a host into the switch, or the switch's there."""
        name = f"tun{number}"
        switch = self.lab.switch.address_for(host)
        ends = [(self.switch, switch, host.address4), (host, host.address4, switch)]
        for (node, own, far), role in zip(ends[::-1] if dials else ends, ROLES, strict=True):
            start(node, TUNNEL, mode, name, own, far, str(port), role)
        self.up(number, name, host)

    def up(self, number: int, name: str, host: Host, above: str | None = None) -> None:
        """Give both ends their addresses; `above` is what stands on the device in the switch."""
        for node, device, end in ((self.switch, above or name, 1), (host, name, 2)):
            address = f"address add {self.inner(number, end)}/28 dev {device}"
            namespaces.batch([f"link set {device} up", address], node.namespace)

    def vxlan(self, number: int, port: int, host: Host, name: str) -> None:
        """Lead a VXLAN from the host into a bridge of the switch."""
        own, far = self.lab.switch.address_for(host), host.address4
        for node, ends in ((self.switch, (own, far)), (host, (far, own))):
            words = f"id {number} local {ends[0]} remote {ends[1]} dstport {port}"
            namespaces.batch([f"link add {name} type vxlan {words}"], node.namespace)
        bridge = ["link add br0 type bridge", f"link set {name} master br0", f"link set {name} up"]
        namespaces.batch(bridge, self.switch.namespace)
        self.up(number, name, host, above="br0")

    def wireguard(self, number: int, port: int, far: str, host: Host) -> None:
        """Lead WireGuard into the switch, which listens at the address `far`."""
        both = (self.switch, host)
        for node in both:
            node.popen(["wireguard-go", "-f", self.device(node)])
            wait_until(self._control(node).is_socket)
        keys = {node: node.run(["wg", "genkey"]).stdout for node in both}
        public = {node: node.run(["wg", "pubkey"], keys[node]).stdout.strip() for node in both}
        for node, other, end in ((self.switch, host, 1), (host, self.switch, 2)):
            device = self.device(node)
            dials = ["endpoint", f"{far}:{port}"] if node is host else []
            listens = ["listen-port", str(port)] if node is self.switch else []
            peer = ["peer", public[other], "allowed-ips", f"{self.inner(number, 3 - end)}/32"]
            words = ["private-key", "/dev/stdin", *listens, *peer, *dials]
            node.run(["wg", "set", device, *words], keys[node])
            address = f"address add {self.inner(number, end)}/28 dev {device}"
            namespaces.batch([address, f"link set {device} up"], node.namespace)

    def device(self, node: Node) -> str:
        """Name a WireGuard device; the control sockets of all namespaces stand in one folder."""
        run = node.namespace.removeprefix("sipfw-").rpartition("-")[0]
        return f"w{run}{node.role[0]}"

    def _control(self, node: Node) -> Path:
        return Path("/run/wireguard") / f"{self.device(node)}.sock"

    def login(self, host: Host, address: str, port: int = 22) -> TcpConnection:
        """Connect and be answered, as somebody who works there."""
        connection = host.tcp_connect(address, port, timeout=3.0)
        assert answered(connection)
        return connection


def answered(connection: TcpConnection) -> bool:
    """Tell whether the session lives: what it is sent comes back, from a terminal even twice."""
    question = f"are you there {next(_questions)}".encode()
    connection.send(question + b"\n")
    heard = b""
    while question not in heard and (more := connection.received()):
        heard += more
    return question in heard


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
