"""The processes of this network namespace: what they hold, and who started whom.

Reads /proc only. A process may end in between, and its name is its own choice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.host.proc_net import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Documentation/admin-guide/devices.txt: the majors of Unix98 pseudo terminals.
_TERMINALS = range(136, 144)
_TUN = "/dev/net/tun"
_PPP = "/dev/ppp"
_INIT = "1"


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `terminal` is the device of its pseudo terminal, None where it has none.

    `sockets` are inode numbers, `tunnels` the tun and tap interfaces that it serves, and `ppp`
    tells whether it holds /dev/ppp.
    """

    pid: str
    name: str
    parent: str | None
    terminal: int | None
    sockets: frozenset[str]
    tunnels: frozenset[str]
    ppp: bool


class Processes:
    """What was running when it was read."""

    def __init__(self, found: Mapping[str, Process], elsewhere: frozenset[str]) -> None:
        self._found = dict(found)
        # Interfaces of tun that a process of another namespace serves.
        self.served_elsewhere = elsewhere

    def __iter__(self) -> Iterator[Process]:
        return iter(self._found.values())

    def get(self, pid: str) -> Process | None:
        """Return one of them; None where it is not in this namespace."""
        return self._found.get(pid)

    def above(self, process: Process) -> Iterator[Process]:
        """Yield parent, grandparent and so on, without the one that started everything."""
        seen = {process.pid, _INIT, "0"}
        parent = process.parent
        while parent is not None and parent not in seen and parent in self._found:
            seen.add(parent)
            yield self._found[parent]
            parent = self._found[parent].parent

    def below(self, process: Process) -> list[Process]:
        """Return all that it has started, and what that has started."""
        return [item for item in self if any(one.pid == process.pid for one in self.above(item))]

    def holding(self, inode: str) -> list[Process]:
        """Return those that have this socket open."""
        return [item for item in self if inode in item.sockets]


def read_processes(proc: Path) -> Processes:
    """Read what can be read: all of them as root, those of its container within one."""
    own = network_namespace(proc / "self")
    found: dict[str, Process] = {}
    elsewhere: set[str] = set()
    for folder in proc.glob("[0-9]*"):
        process = _read(folder)
        if None in (own, space := network_namespace(folder)) or own == space:
            found[process.pid] = process
        else:
            elsewhere |= process.tunnels
    return Processes(found, frozenset(elsewhere))


def printable(name: str) -> str:
    """Write a name that anybody may have chosen."""
    return "".join(c if c.isprintable() else "?" for c in name)


def parent_of(process: Path) -> str | None:
    """Return the process id of the parent."""
    words = [line.split() for line in lines_of(process / "status") if line.startswith("PPid:")]
    return words[0][1] if words and len(words[0]) == 2 and words[0][1].isdecimal() else None


def environ_of(process: Path) -> dict[str, str]:
    """Return the environment that the process began with."""
    try:
        text = (process / "environ").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (item.partition("=") for item in text.split("\0"))
    return {name: value for name, _, value in pairs}


def network_namespace(process: Path) -> str | None:
    """Return what identifies it, None where that cannot be read."""
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return None


def _read(folder: Path) -> Process:
    links = dict(_links(folder / "fd"))
    return Process(
        folder.name,
        printable(next(iter(lines_of(folder / "comm")), "")),
        parent_of(folder),
        _terminal(folder),
        frozenset(link[8:-1] for link in links.values() if link.startswith("socket:[")),
        frozenset(
            name
            for number, link in links.items()
            if link == _TUN
            for name in _tunnel(folder / "fdinfo" / number)
        ),
        _PPP in links.values(),
    )


def _tunnel(fdinfo: Path) -> Iterator[str]:
    """Read the interface of a tun descriptor (tun_chr_show_fdinfo)."""
    for line in lines_of(fdinfo):
        key, _, name = line.partition(":")
        if key == "iff" and name.strip():
            yield name.strip()


def _terminal(folder: Path) -> int | None:
    """Read tty_nr of proc_pid_stat(5); the name before it may hold spaces and brackets."""
    words = "".join(lines_of(folder / "stat")).rpartition(")")[2].split()
    try:
        number = int(words[4])
    except (IndexError, ValueError):
        return None
    return number if (number >> 8) & 0xFF in _TERMINALS else None


def _links(folder: Path) -> Iterator[tuple[str, str]]:
    """Read what descriptors point to; pathlib takes twice as long, and there are thousands."""
    place = str(folder)
    try:
        names = os.listdir(place)  # noqa: PTH208 - see above
    except OSError:
        return
    for name in names:
        try:
            yield name, os.readlink(f"{place}/{name}")  # noqa: PTH115 - see above
        except OSError:
            continue
