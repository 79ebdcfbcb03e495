"""The sockets of this network namespace, from /proc/net: who talks to whom, and whose it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from sipfw.host.proc_net import from_hex, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.ruleset.addresses import IpAddress

# net/tcp_states.h.
_ESTABLISHED = 1
_LISTEN = 10


class SocketKind(StrEnum):
    """The tables; the local port of a raw socket is its protocol number (raw(7))."""

    TCP = "tcp"
    UDP = "udp"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Socket:
    """One line of a table. A remote port of 0 says that the socket is not connected."""

    kind: SocketKind
    local: IpAddress
    port: int
    remote: IpAddress
    remote_port: int
    state: int
    uid: str
    inode: str

    @property
    def listens(self) -> bool:
        """Tell whether it waits for TCP connections."""
        return self.kind is SocketKind.TCP and self.state == _LISTEN

    @property
    def established(self) -> bool:
        """Tell whether it is an open TCP connection."""
        return self.kind is SocketKind.TCP and self.state == _ESTABLISHED

    @property
    def outside(self) -> bool:
        """Tell whether packets from other hosts can reach it."""
        return not (self.local.is_loopback or self.remote.is_loopback)


@dataclass(frozen=True, slots=True)
class Sockets:
    """All of them, as of one moment."""

    all: tuple[Socket, ...]

    @property
    def listening_ports(self) -> frozenset[int]:
        """Return the TCP ports that anybody listens on."""
        return frozenset(item.port for item in self.all if item.listens)

    def inbound(self) -> list[Socket]:
        """Return the TCP connections that the other end has opened, as far as can be told."""
        ports = self.listening_ports
        return [item for item in self.all if item.established and item.port in ports]


def read_sockets(proc: Path) -> Sockets:
    """Read the tables of both families; a line that cannot be read is none."""
    return Sockets(
        tuple(
            item
            for kind in SocketKind
            for name in (kind.value, f"{kind.value}6")
            for item in _table(proc / "net" / name, kind)
        )
    )


def plain(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that a v6 socket shows as ::ffff:a.b.c.d."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _table(path: Path, kind: SocketKind) -> Iterator[Socket]:
    """Read a table of proc_pid_net(5): `sl local remote st queues timer retrnsmt uid to inode`."""
    for line in lines_of(path)[1:]:
        words = line.split()
        try:
            (local, port), (remote, remote_port) = _end(words[1]), _end(words[2])
            state, uid, inode = int(words[3], 16), words[7], words[9]
            yield Socket(kind, local, port, remote, remote_port, state, uid, inode)
        except (IndexError, ValueError, struct.error):
            continue


def _end(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    address, _, port = text.partition(":")
    return plain(from_hex(address)), int(port, 16)
