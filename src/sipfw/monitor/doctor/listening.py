"""Who listens on this host: sockets of /proc/net, and the processes that hold them."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.host.proc_net import from_hex, lines_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

# net/tcp_states.h: a datagram socket that is not connected is in state CLOSE.
_STATES = {"tcp": "0A", "udp": "07", "raw": "07"}


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that takes packets from anybody; of a raw one, `port` is the IP protocol."""

    proto: str
    address: IPv4Address | IPv6Address
    port: int
    inode: str

    @property
    def is_local(self) -> bool:
        """Tell whether only this host itself reaches it."""
        mapped = getattr(self.address, "ipv4_mapped", None)
        return (mapped or self.address).is_loopback


def listeners(proc: Path) -> list[Listener]:
    """Return the sockets of this network namespace; what cannot be read is none."""
    return [
        found
        for proto in _STATES
        for family in ("", "6")
        for found in _sockets(proc / "net" / f"{proto}{family}", proto)
    ]


def _sockets(path: Path, proto: str) -> Iterator[Listener]:
    """Read `sl local remote st queues timer retrnsmt uid to inode` (proc_pid_net(5))."""
    for line in lines_of(path)[1:]:
        words = line.split()
        with suppress(IndexError, ValueError, struct.error):
            address, _, port = words[1].partition(":")
            if words[3] == _STATES[proto] and words[2].endswith(":0000"):
                yield Listener(proto, from_hex(address), int(port, 16), words[9])


def holders(proc: Path, inodes: Collection[str]) -> dict[str, str]:
    """Return the name of a process for each socket that one holds.

    A socket of the kernel itself, a tunnel's for example, is held by none.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, str] = {}
    for comm in sorted(proc.glob("[0-9]*/comm")):
        # The process may end in between, and nobody but root sees those of others.
        with suppress(OSError):
            held = {str(entry.readlink()) for entry in (comm.parent / "fd").iterdir()}
            for link in held & wanted.keys():
                found.setdefault(wanted[link], (lines_of(comm) or ["?"])[0])
    return found
