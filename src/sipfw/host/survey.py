"""Looks at the host for `init`: SIP sockets, the SSH client, interfaces. Reads /proc only."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

_TCP_LISTEN = "0A"

# `sl local_address rem_address st`, see proc_pid_net(5).
_SOCKET = re.compile(
    r"\s*\d+: [0-9A-F]+:(?P<port>[0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} (?P<state>[0-9A-F]{2}) "
)

# Ports that a softswitch may listen on, so that a survey does not take a web server for SIP.
_SIP_PORTS = frozenset({5060, 5061, 5080, 5081, 5160, 5161, 6060, 1980, 2080, 5066, 7443})

# Process names by switch; comm is cut at 15 bytes (TASK_COMM_LEN).
_PROCESSES = {
    "asterisk": "asterisk",
    "freeswitch": "freeswitch",
    "kamailio": "kamailio",
    "opensips": "opensips",
    "mbx3000": "vos3000",
    "vos3000": "vos3000",
    "3CXPhoneSystem": "3cx",
}


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found; every part may be empty."""

    switch: str | None
    udp_ports: tuple[int, ...]
    tcp_ports: tuple[int, ...]
    admin_candidates: tuple[str, ...]
    interfaces: tuple[str, ...]


def survey(proc: Path = Path("/proc"), environment: dict[str, str] | None = None) -> Survey:
    """Look at this host. Never fails: what cannot be read is not found."""
    return Survey(
        _switch(proc),
        _ports(proc, "udp"),
        _ports(proc, "tcp"),
        _ssh_client(dict(os.environ) if environment is None else environment),
        _interfaces(proc),
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _ports(proc: Path, name: str) -> tuple[int, ...]:
    """Read bound UDP or listening TCP ports from /proc/net (proc(5))."""
    found = set()
    for family in ("", "6"):
        for line in _lines(proc / "net" / f"{name}{family}")[1:]:
            socket = _SOCKET.match(line)
            if socket is not None and (name == "udp" or socket["state"] == _TCP_LISTEN):
                found.add(int(socket["port"], 16))
    return tuple(sorted(found & _SIP_PORTS))


def _switch(proc: Path) -> str | None:
    names = {line for path in proc.glob("[0-9]*/comm") for line in _lines(path)[:1]}
    found = next((switch for process, switch in _PROCESSES.items() if process in names), None)
    # FreePBX is Asterisk with a web interface.
    return "freepbx" if found == "asterisk" and Path("/etc/freepbx.conf").exists() else found


def _ssh_client(environment: dict[str, str]) -> tuple[str, ...]:
    words = environment.get("SSH_CONNECTION", "").split()
    try:
        return (str(ip_address(words[0].partition("%")[0])),) if words else ()
    except ValueError:
        return ()


def _interfaces(proc: Path) -> tuple[str, ...]:
    names = [line.partition(":")[0].strip() for line in _lines(proc / "net" / "dev")[2:]]
    return tuple(name for name in names if name != "lo")
