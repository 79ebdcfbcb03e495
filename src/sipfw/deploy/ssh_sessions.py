"""Who is logged in by ssh: told by the environment, the processes above and the kernel's tables.

Reads /proc only. What stands there was written by others: what cannot be read is no session.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.deploy.proc_net import from_hex, lines_of, way_to

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

SSH_PORT = 22

# The listener is sshd; since OpenSSH 9.8 a connection belongs to sshd-session.
_DAEMONS = frozenset({"sshd", "sshd-session", "dropbear"})

# net/tcp_states.h.
_ESTABLISHED = 1
_LISTEN = 10

_ROOT = "0"


@dataclass(frozen=True, slots=True)
class Session:
    """One ssh connection to this host, and what told of it.

    `address` is this host's end, None where nothing tells it. `interface` is where the route to
    the client leads.
    """

    client: IPv4Address | IPv6Address
    client_port: int
    address: IPv4Address | IPv6Address | None
    port: int
    found: str
    interface: str | None = None

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Sort sessions by client."""
        return self.client.version, int(self.client), self.port, self.client_port


@dataclass(frozen=True, slots=True)
class _Socket:
    local: IPv4Address | IPv6Address
    port: int
    remote: IPv4Address | IPv6Address
    remote_port: int
    state: int
    uid: str
    inode: str


def ssh_sessions(
    proc: Path = Path("/proc"),
    environment: Mapping[str, str] | None = None,
    fallback_ports: Collection[int] = (SSH_PORT,),
) -> tuple[Session, ...]:
    """Find the ssh sessions of this process, of those that started it, and of everybody else.

    `fallback_ports` count as sshd's where no listening sshd can be seen, as in a container.
    """
    sockets = [*_sockets(proc / "net" / "tcp"), *_sockets(proc / "net" / "tcp6")]
    ports = _ssh_ports(proc, sockets) or set(fallback_ports)
    live = [
        Session(item.remote, item.remote_port, item.local, item.port, "connected now")
        for item in sockets
        if item.state == _ESTABLISHED and item.port in ports
    ]
    named = _named_sessions(proc, dict(os.environ) if environment is None else environment)
    found: dict[tuple[IPv4Address | IPv6Address, int, int], Session] = {}
    for session in (*named, *live):
        key = session.client, session.client_port, session.port
        known = found.setdefault(key, session)
        # SSH_CLIENT does not tell this host's address, the table of connections does.
        found[key] = replace(known, address=known.address or session.address)
    return tuple(
        session if session.interface else replace(session, interface=_interface(proc, session))
        for session in sorted(found.values(), key=lambda item: item.order)
    )


def _named_sessions(proc: Path, environment: Mapping[str, str]) -> Iterator[Session]:
    """Read SSH_CONNECTION and SSH_CLIENT here and in the processes above: sudo clears them.

    A variable whose outermost holder lives in another network namespace tells of a connection
    that does not come through this firewall.
    """
    outermost: dict[tuple[str, str], str | None] = {}
    for process, variables in _ancestry(proc, environment):
        for name in ("SSH_CONNECTION", "SSH_CLIENT"):
            if variables.get(name):
                outermost[name, variables[name]] = _network_namespace(process)
    own = _network_namespace(proc / "self")
    for (name, value), namespace in outermost.items():
        session = _from_variable(name, value.split())
        if session is not None and (None in (own, namespace) or own == namespace):
            yield session


def _ancestry(
    proc: Path, environment: Mapping[str, str]
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    yield proc / "self", environment
    parent, seen = _parent(proc / "self"), {"0"}
    while parent is not None and parent not in seen:
        seen.add(parent)
        yield proc / parent, _environ(proc / parent)
        parent = _parent(proc / parent)


def _parent(process: Path) -> str | None:
    words = [line.split() for line in lines_of(process / "status") if line.startswith("PPid:")]
    return words[0][1] if words and len(words[0]) == 2 and words[0][1].isdecimal() else None


def _environ(process: Path) -> dict[str, str]:
    try:
        text = (process / "environ").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (item.partition("=") for item in text.split("\0"))
    return {name: value for name, _, value in pairs}


def _network_namespace(process: Path) -> str | None:
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return None


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
    return _plain(ip_address(address)), scope


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that a v6 socket shows as ::ffff:a.b.c.d."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _ssh_ports(proc: Path, sockets: Iterable[_Socket]) -> set[int]:
    """Return the listening ports of sshd, also where systemd listens for it.

    Anybody may call a program sshd, and a user's sshd listens for `ssh -R`: only root's count.
    """
    links = [
        link
        for comm in proc.glob("[0-9]*/comm")
        # Read once: the process may end in between.
        if set(lines_of(comm)[:1]) & set(_DAEMONS)
        for link in _links(comm.parent / "fd")
    ]
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    listening = {item.port for item in sockets if item.state == _LISTEN and item.uid == _ROOT}
    return {item.port for item in sockets if item.inode in own and item.port in listening}


def _links(folder: Path) -> Iterator[str]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            yield str(entry.readlink())
        except OSError:
            continue


def _sockets(path: Path) -> Iterator[_Socket]:
    """Read a table of proc_pid_net(5): `sl local remote st queues timer retrnsmt uid to inode`."""
    for line in lines_of(path)[1:]:
        words = line.split()
        try:
            (local, port), (remote, remote_port) = _end(words[1]), _end(words[2])
            state, uid, inode = int(words[3], 16), words[7], words[9]
            yield _Socket(local, port, remote, remote_port, state, uid, inode)
        except (IndexError, ValueError, struct.error):
            continue


def _end(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    address, _, port = text.partition(":")
    return _plain(from_hex(address)), int(port, 16)


def _interface(proc: Path, session: Session) -> str | None:
    if session.client.is_loopback or session.client == session.address:
        return "lo"
    return way_to(session.client, proc)
