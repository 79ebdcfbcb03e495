"""Tunnels and proxies that are programs: by which of their sockets a login reaches this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.lockout.carried import Carrier
from sipfw.host.sockets import Socket, SocketKind
from sipfw.ruleset.addresses import IpProto

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sipfw.host.processes import Process, Processes
    from sipfw.host.sessions import Session
    from sipfw.host.sockets import Sockets

# They open all flows themselves, and go over a relay where that fails.
_DIALLING = frozenset({"tailscaled", "zerotier-one", "netbird", "cloudflared"})
# A virtual machine's network ends on this host: what comes through its tap has no outside.
_MACHINES = ("qemu", "kvm", "firecracker", "cloud-hyperviso")
# ICMP, ICMPv6 and IPPROTO_RAW (raw(7)): sockets of ping, and of who writes whole packets.
_NO_TUNNEL = frozenset({1, 58, 255})


def ways_into(group: Collection[Process], sockets: Sockets) -> tuple[Carrier, ...]:
    """Return how packets from outside come to these processes.

    Connections that they have opened themselves count where there is nothing else: a VPN server
    may also ask a database.
    """
    held = {inode for process in group for inode in process.sockets}
    mine = [item for item in sockets.all if item.inode in held and item.outside]
    open_ports = {item.port for item in sockets.all if item.kind is SocketKind.UDP and _waits(item)}
    listening = sockets.listening_ports
    dialling = any(process.name in _DIALLING for process in group)
    ways: list[Carrier] = []
    outbound: list[Carrier] = []
    for item in mine:
        match item.kind:
            case SocketKind.TCP if item.established:
                ours = item.port not in listening
                (outbound if ours else ways).append(_way(item, IpProto.TCP, dialled=ours))
            case SocketKind.UDP:
                ours = not _waits(item) and item.port not in open_ports
                way = _way(item, IpProto.UDP, dialled=ours or dialling)
                (outbound if ours else ways).append(way)
            case SocketKind.RAW if item.port not in _NO_TUNNEL:
                ways.append(_way(item, IpProto.OTHER))
            case _:
                continue
    return tuple(dict.fromkeys(ways or outbound))


def servants(
    name: str, processes: Processes, serves: Callable[[Process], bool], sockets: Sockets
) -> list[Process] | None:
    """Return the processes behind an interface; None where they cannot be seen.

    A process may leave the network to the one that started it, or to one that it has started.
    """
    holders = [item for item in processes if serves(item)]
    if not holders:
        return [] if name in processes.served_elsewhere else None
    if any(item.name.startswith(_MACHINES) for item in holders):
        return []
    if not ways_into(holders, sockets):
        relatives = {
            item.pid: item
            for holder in holders
            for item in (*processes.above(holder), *processes.below(holder))
        }
        holders += relatives.values()
    return holders


def other_end(session: Session, sockets: Sockets) -> Socket | None:
    """Return the socket of this host from which a login comes."""
    for item in sockets.all:
        if (
            item.established
            and (item.local, item.port) == (session.client, session.client_port)
            and item.remote_port == session.port
            and session.address in (None, item.remote)
        ):
            return item
    return None


def unowned_udp(processes: Iterable[Process], sockets: Sockets) -> list[Socket]:
    """Return the sockets of the kernel itself: no process has them."""
    held = {inode for process in processes for inode in process.sockets}
    return [item for item in sockets.all if item.kind is SocketKind.UDP and item.inode not in held]


def _waits(item: Socket) -> bool:
    return item.remote_port == 0


def _way(item: Socket, protocol: IpProto, *, dialled: bool = False) -> Carrier:
    numbered = protocol is IpProto.OTHER
    return Carrier(
        protocol,
        0 if numbered else item.port,
        item.port if numbered else 0,
        None if item.remote.is_unspecified else item.remote,
        None if item.local.is_unspecified else item.local,
        dialled=dialled,
    )
