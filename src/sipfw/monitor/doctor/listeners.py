"""Other ports on which the program listens that owns a SIP port of the policy.

A softswitch with a second SIP port that the policy does not list is open there. UDP only: over TCP
a switch listens for its web pages and managers too, and nothing tells which one is SIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.host.proc_net import lines_of
from sipfw.ruleset.match import L4Proto

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from sipfw.ruleset.source import Door

# What softswitches listen on that is no SIP: MGCP, DUNDi, IAX2, Unistim, mDNS, STUN, H.323.
_OTHERS = frozenset({1719, 2427, 2727, 3478, 4520, 4569, 5000, 5353})
_FIRST_OPEN = 1024
# udp(7): an unconnected socket has state TCP_CLOSE in /proc/net/udp.
_UNCONNECTED = "07"
# As shipped (ip_local_port_range in the kernel's ip-sysctl.rst).
_EPHEMERAL = (32768, 60999)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A port that the owner of a listed one has open."""

    port: int
    beside: int
    program: str

    @property
    def sentence(self) -> str:
        """Say what it is and what to do."""
        return (
            f"{self.program} listens on udp port {self.port} as on SIP port {self.beside}, and the "
            f"policy does not list it: if that is SIP, add {self.port} to signalling.udp and apply"
        )


def unlisted_listeners(proc: Path, doors: Collection[Door]) -> list[Unlisted]:
    """Return the unlisted UDP ports of programs that own a listed one, by port."""
    listed = {door.port for door in doors if door.proto is L4Proto.UDP}
    ports = dict(_open_ports(proc))
    if not listed & set(ports.values()):
        return []
    media = _media_limit(proc)
    found: dict[int, Unlisted] = {}
    for folder in proc.glob("[0-9]*/fd"):
        own = {ports[inode] for inode in _sockets(folder) if inode in ports}
        beside = min(own & listed, default=None)
        for port in sorted(own - listed - _OTHERS) if beside is not None else ():
            if _FIRST_OPEN <= port < media and port not in found:
                name = next(iter(lines_of(folder.parent / "comm")), "a program")
                found[port] = Unlisted(port, beside or 0, name)
    return [found[port] for port in sorted(found)]


def _media_limit(proc: Path) -> int:
    """Return where RTP and ports of the kernel's own choice begin: those come and go by call."""
    words = " ".join(lines_of(proc / "sys/net/ipv4/ip_local_port_range")).split()
    first = int(words[0]) if words and words[0].isdecimal() else _EPHEMERAL[0]
    return min(first, 10_000)


def _open_ports(proc: Path) -> Iterator[tuple[str, int]]:
    """Yield inode and port of each UDP socket that hears everybody."""
    for name in ("udp", "udp6"):
        for line in lines_of(proc / "net" / name)[1:]:
            words = line.split()
            address, _, port = (words[1] if len(words) > 9 else "").rpartition(":")
            loopback = address in {"0100007F", "7F000001", "0" * 24 + "01000000", "0" * 31 + "1"}
            if address and not loopback and words[3] == _UNCONNECTED:
                yield words[9], int(port, 16)


def _sockets(folder: Path) -> Iterator[str]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            text = str(entry.readlink())
        except OSError:
            continue
        if text.startswith("socket:["):
            yield text[8:-1]
