"""A namespace with a device to receive on and sockets that take what arrives."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import namespaces
from packets import MEDIA_PORT, SIP_PORT, SWITCH
from sipfw.host.runner import HOST_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from packets import PacketClass

DEVICE = "wan0"
_NEXT_HOP = "192.0.2.254"
_CLONE_NEWNET = 0x40000000
_SIOCGIFHWADDR = 0x8927
# Nothing reads the sockets: a full queue drops at the last step before the application.
_SMALL_BUFFER = 2048

_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    # os.setns came with Python 3.12.
    if _libc.setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Stage:
    """The host under test."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"{namespaces.fresh_prefix()}bench"
        # The lock file is one for all namespaces; ours need not wait for other people's tables.
        self._env = {
            **os.environ,
            "PATH": HOST_PATH,
            "XTABLES_LOCKFILE": str(folder / "xtables.lock"),
        }
        self._sockets: dict[int, socket.socket] = {}
        self._root = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.batch([f"netns add {self.namespace}"])
        self._own = os.open(namespaces.NETNS / self.namespace, os.O_RDONLY | os.O_CLOEXEC)
        self._build()

    def _build(self) -> None:
        silent = ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        namespaces.set_sysctls(self.namespace, silent)
        namespaces.batch(
            [
                f"link add name {DEVICE} type veth peer name far0",
                "link set dev lo up",
                f"link set dev {DEVICE} up",
                "link set dev far0 up",
                f"address add {SWITCH}/24 dev {DEVICE}",
                f"neighbour add {_NEXT_HOP} lladdr 02:00:00:00:00:02 dev {DEVICE}",
                f"route add default via {_NEXT_HOP}",
            ],
            self.namespace,
        )
        with self.inside():
            for port in (SIP_PORT, MEDIA_PORT):
                sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
                sink.bind((SWITCH, port))
                self._sockets[port] = sink
            self.interface_index = socket.if_nametoindex(DEVICE)
            request = struct.pack("256s", DEVICE.encode())
            answer = fcntl.ioctl(self._sockets[SIP_PORT], _SIOCGIFHWADDR, request)
        self.hardware_address: bytes = answer[18:24]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread, and programs it starts, into the namespace."""
        _enter(self._own)
        try:
            yield
        finally:
            _enter(self._root)

    def run(self, argv: Sequence[str], text: str = "", env: Mapping[str, str] | None = None) -> str:
        """Run a program inside, to its end; `env` is added to the environment."""
        with self.inside():
            done = subprocess.run(
                argv,
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
                env={**self._env, **(env or {})},
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def answer(self, packets: PacketClass) -> None:
        """Let the switch reply once, so that the flow counts as established."""
        target = (packets.source, packets.source_port)
        with self.inside():
            self._sockets[packets.port].sendto(b"SIP/2.0 100 Trying\r\n\r\n", target)

    def received(self) -> tuple[int, int]:
        """Return how many intact IPv4 packets came in and how many reached a transport protocol."""
        with self.inside():
            lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines[:2])
        counted = dict(zip(names, values, strict=True))
        intact = int(counted["InReceives"]) - int(counted["InHdrErrors"])
        return intact, int(counted["InDelivers"])

    def tracked(self) -> int:
        """Return the number of tracked connections."""
        with self.inside():
            return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())

    def forget_connections(self) -> None:
        """Empty the table of tracked connections."""
        self.run(["conntrack", "-F"])

    def close(self) -> None:
        """Remove the namespace and everything in it."""
        for sink in self._sockets.values():
            sink.close()
        os.close(self._own)
        os.close(self._root)
        namespaces.remove([self.namespace])
