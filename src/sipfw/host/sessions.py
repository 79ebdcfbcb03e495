"""Who is logged in: told by the environment, by who holds a terminal, and by the kernel's tables.

Reads /proc only. What stands there was written by others: what cannot be read is no session.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.host.proc_net import way_to
from sipfw.host.processes import (
    Process,
    Processes,
    environ_of,
    network_namespace,
    parent_of,
    read_processes,
)
from sipfw.host.sockets import Socket, SocketKind, Sockets, plain, read_sockets
from sipfw.ruleset.addresses import IpProto

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

SSH_PORT = 22
SSH = "ssh"

# The listener is sshd; since OpenSSH 9.8 a connection belongs to sshd-session.
_DAEMONS = frozenset({"sshd", "sshd-session", "dropbear", "tinysshd"})
# Logins whose terminal is no descendant of what holds the connection; comm has 15 bytes.
_CONSOLES = frozenset({"cockpit-tls", "cockpit-ws", "etserver", "xrdp"})

_VARIABLES = ("SSH_CONNECTION", "SSH_CLIENT")
_ROOT = "0"


@dataclass(frozen=True, slots=True)
class Session:
    """One login to this host, and what told of it.

    `address` is this host's end, None where nothing tells it. `interface` is where the route to
    the client leads. `service` is `ssh`, or `terminal` for any other way to a shell.
    """

    client: IPv4Address | IPv6Address
    client_port: int
    address: IPv4Address | IPv6Address | None
    port: int
    found: str
    interface: str | None = None
    protocol: IpProto = IpProto.TCP
    service: str = SSH

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Sort sessions by client."""
        return self.client.version, int(self.client), self.port, self.client_port


def ssh_sessions(
    proc: Path = Path("/proc"),
    environment: Mapping[str, str] | None = None,
    fallback_ports: Collection[int] = (SSH_PORT,),
) -> tuple[Session, ...]:
    """Find the logins of this process, of those that started it, and of everybody else.

    `fallback_ports` count as sshd's where no listening sshd can be seen, as in a container.
    """
    sockets, processes = read_sockets(proc), read_processes(proc)
    named = _named_sessions(proc, dict(os.environ) if environment is None else environment)
    found: dict[tuple[IPv4Address | IPv6Address, int, int, IpProto], Session] = {}
    for session in (
        *named,
        *_of_daemons(sockets, processes, fallback_ports),
        *_of_terminals(proc, sockets, processes),
        *_of_children(proc, sockets, processes),
        *_of_parents(proc, sockets, processes),
    ):
        key = session.client, session.client_port, session.port, session.protocol
        known = found.setdefault(key, session)
        # SSH_CLIENT does not tell this host's address, the table of connections does.
        found[key] = replace(known, address=known.address or session.address)
    return tuple(
        session if session.interface else replace(session, interface=_interface(proc, session))
        for session in sorted(found.values(), key=lambda item: item.order)
    )


def calling_client(
    proc: Path = Path("/proc"), environment: Mapping[str, str] | None = None
) -> IPv4Address | IPv6Address | None:
    """Return where the caller of this process is logged in from; None where nothing tells it.

    SSH_CONNECTION is what the caller says, here or above sudo, which clears it; without it the
    connection that stands above this process tells.
    """
    named = _named_sessions(proc, dict(os.environ) if environment is None else environment)
    found = next(named, None) or next(
        _of_parents(proc, read_sockets(proc), read_processes(proc)), None
    )
    return None if found is None else found.client


def _of_daemons(
    sockets: Sockets, processes: Processes, fallback_ports: Collection[int]
) -> Iterator[Session]:
    """Return who is connected to a port of a daemon that is known by its name."""
    ssh = _ports(sockets, processes, _DAEMONS) or set(fallback_ports)
    consoles = _ports(sockets, processes, _CONSOLES) - ssh
    for item in sockets.all:
        if item.established and item.port in ssh | consoles:
            service = SSH if item.port in ssh else "terminal"
            yield _session(item, "connected now", service)


def _of_terminals(proc: Path, sockets: Sockets, processes: Processes) -> Iterator[Session]:
    """Return whose connection stands behind a terminal, whatever the daemon is called.

    It is held by the nearest ancestor that has one and sits at no terminal itself: somebody may
    have started a web server at this very terminal.
    """
    inbound, datagrams = _by_inode(sockets.inbound()), _by_inode(_reached_by_udp(sockets))
    for process in processes:
        if process.terminal is None:
            continue
        for holder in processes.above(process):
            if holder.terminal == process.terminal:
                continue
            if connections := _logins(holder, inbound, sockets):
                service = SSH if holder.name in _DAEMONS else "terminal"
                yield from (_session(item, holder.name, service) for item in connections)
                break
            if held := [datagrams[item] for item in holder.sockets & datagrams.keys()]:
                yield from _over_udp(proc, holder, held)
                break


def _logins(holder: Process, inbound: Mapping[str, Socket], sockets: Sockets) -> list[Socket]:
    """Return the connections that it holds.

    What a session of sshd listens on itself is what its user has it forward (ssh -R, X11).
    """
    forwarded = {
        item.port
        for item in sockets.all
        if item.listens and item.inode in holder.sockets and holder.name in _DAEMONS
    }
    held = [inbound[inode] for inode in holder.sockets & inbound.keys()]
    return [item for item in held if item.port not in forwarded]


def _over_udp(proc: Path, holder: Process, held: Iterable[Socket]) -> Iterator[Session]:
    """Return the clients of mosh and the like: by its own socket, else by the ssh that began it."""
    environment = environ_of(proc / holder.pid)
    began = [
        session
        for name in _VARIABLES
        if (session := _from_variable(name, environment.get(name, "").split())) is not None
    ]
    for item in held:
        if item.remote_port:
            clients = [(item.remote, item.remote_port)]
        else:
            clients = [(session.client, 0) for session in began[:1]]
        for client, port in clients:
            own = item.local if item.local.version == client.version else None
            address = None if own is None or own.is_unspecified else own
            yield Session(
                client, port, address, item.port, holder.name, None, IpProto.UDP,
                "terminal",
            )  # fmt: skip


def _of_children(proc: Path, sockets: Sockets, processes: Processes) -> Iterator[Session]:
    """Return the logins without a terminal: scripts that an ssh daemon of any name has started.

    Anybody may set these variables, so the connection must be open, and held above the process.
    """
    inbound = sockets.inbound()
    for process in processes:
        environment = environ_of(proc / process.pid)
        for name in _VARIABLES:
            session = _from_variable(name, environment.get(name, "").split())
            if session is None:
                continue
            end = session.client, session.client_port, session.port
            above = {inode for item in processes.above(process) for inode in item.sockets}
            for item in inbound:
                if (item.remote, item.remote_port, item.port) == end and item.inode in above:
                    yield _session(item, "connected now", SSH)


def _of_parents(proc: Path, sockets: Sockets, processes: Processes) -> Iterator[Session]:
    """Return who has started this process over the network, with neither terminal nor variables.

    Where the daemon serves several clients, nobody can tell which of them it was.
    """
    try:
        own = processes.get(str((proc / "self").readlink()))
    except OSError:
        return
    inbound = _by_inode(sockets.inbound())
    for holder in (own, *processes.above(own)) if own else ():
        if connections := _logins(holder, inbound, sockets):
            if len({item.remote for item in connections}) == 1:
                service = SSH if holder.name in _DAEMONS else "terminal"
                yield _session(connections[0], holder.name, service)
            return


def _session(item: Socket, found: str, service: str) -> Session:
    return Session(item.remote, item.remote_port, item.local, item.port, found, service=service)


def _reached_by_udp(sockets: Sockets) -> list[Socket]:
    """Return what others may open: a connected socket shares its port with one that is not."""
    udp = [item for item in sockets.all if item.kind is SocketKind.UDP and item.outside]
    waiting = {item.port for item in udp if not item.remote_port}
    return [item for item in udp if item.port in waiting]


def _by_inode(sockets: Iterable[Socket]) -> dict[str, Socket]:
    return {item.inode: item for item in sockets}


def _ports(sockets: Sockets, processes: Processes, daemons: Collection[str]) -> set[int]:
    """Return the listening ports of daemons, also where systemd listens for them.

    Anybody may call a program sshd, and a user's sshd listens for `ssh -R`: only root's count.
    """
    own = {inode for item in processes if item.name in daemons for inode in item.sockets}
    listening = {item.port for item in sockets.all if item.listens and item.uid == _ROOT}
    return {item.port for item in sockets.all if item.inode in own and item.port in listening}


def _named_sessions(proc: Path, environment: Mapping[str, str]) -> Iterator[Session]:
    """Read SSH_CONNECTION and SSH_CLIENT here and in the processes above: sudo clears them.

    A variable whose outermost holder lives in another network namespace tells of a connection
    that does not come through this firewall.
    """
    outermost: dict[tuple[str, str], str | None] = {}
    for process, variables in _ancestry(proc, environment):
        for name in _VARIABLES:
            if variables.get(name):
                outermost[name, variables[name]] = network_namespace(process)
    own = network_namespace(proc / "self")
    for (name, value), namespace in outermost.items():
        session = _from_variable(name, value.split())
        if session is not None and (None in (own, namespace) or own == namespace):
            yield session


def _ancestry(
    proc: Path, environment: Mapping[str, str]
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    yield proc / "self", environment
    parent, seen = parent_of(proc / "self"), {"0"}
    while parent is not None and parent not in seen:
        seen.add(parent)
        yield proc / parent, environ_of(proc / parent)
        parent = parent_of(proc / parent)


def _from_variable(name: str, words: list[str]) -> Session | None:
    """Read `client port address port` or, in SSH_CLIENT, `client port port`."""
    if len(words) != (4 if name == "SSH_CONNECTION" else 3):
        return None
    try:
        client, scope = _scoped(words[0])
        address = _scoped(words[2])[0] if name == "SSH_CONNECTION" else None
        client_port, port = _port(words[1]), _port(words[-1])
    except ValueError:
        return None
    if address is not None and address.version != client.version:
        return None
    return Session(client, client_port, address, port, name, scope or None)


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port <= 65535:
        raise ValueError(text)
    return port


def _scoped(text: str) -> tuple[IPv4Address | IPv6Address, str]:
    address, _, scope = text.partition("%")
    return plain(ip_address(address)), scope


def _interface(proc: Path, session: Session) -> str | None:
    if session.client.is_loopback or session.client == session.address:
        return "lo"
    return way_to(session.client, proc)
