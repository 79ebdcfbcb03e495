"""A `/proc` of ordinary files, for tests of who is logged in and what carries them."""

from __future__ import annotations

import shutil
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sipfw.host.sessions import ssh_sessions

if TYPE_CHECKING:
    from pathlib import Path

HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n"
)
ESTABLISHED, LISTEN, TIME_WAIT = "01", "0A", "06"
HERE, CLIENT, OTHER = "203.0.113.1", "198.51.100.7", "192.0.2.7"


def hex_address(address: str) -> str:
    packed = ip_address(address).packed
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def row(local: tuple[str, int], remote: tuple[str, int], state: str, inode: int, uid: int) -> str:
    ends = " ".join(f"{hex_address(address)}:{port:04X}" for address, port in (local, remote))
    return f"   0: {ends} {state} 00000000:00000000 00:00000000 00000000 {uid} 0 {inode} 1 0\n"


class Proc:
    """A `/proc` in a folder: this process is 900, its parents are what a test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "net").mkdir()
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
            (root / "net" / table).write_text(HEAD)
        self.process(900, "sipfw", 1)
        (root / "self").symlink_to("900")

    def process(
        self,
        pid: int,
        comm: str,
        parent: int,
        environ: dict[str, str] | None = None,
        *,
        sockets: tuple[int, ...] = (),
        namespace: str = "net:[1]",
    ) -> None:
        folder = self.root / str(pid)
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("fd", "ns"):
            (folder / name).mkdir(parents=True)
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "status").write_text(f"Name:\t{comm}\nPid:\t{pid}\nPPid:\t{parent}\n")
        pairs = "".join(f"{name}={value}\0" for name, value in (environ or {}).items())
        (folder / "environ").write_text(pairs)
        (folder / "ns" / "net").symlink_to(namespace)
        (folder / "fd" / "0").symlink_to("/dev/null")
        for number, inode in enumerate(sockets, start=3):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def socket(
        self,
        local: tuple[str, int],
        remote: tuple[str, int] = ("0.0.0.0", 0),
        state: str = LISTEN,
        inode: int = 0,
        uid: int = 0,
        *,
        kind: str = "tcp",
    ) -> None:
        table = f"{kind}6" if ":" in local[0] else kind
        if ":" in local[0] and remote[1] == 0:
            remote = ("::", 0)
        with (self.root / "net" / table).open("a") as file:
            file.write(row(local, remote, state, inode, uid))

    def sshd(self, port: int = 22, pid: int = 500, inode: int = 50) -> None:
        self.process(pid, "sshd", 1, sockets=(inode,))
        self.socket(("0.0.0.0", port), inode=inode)

    def login(self, client: str = CLIENT, port: int = 22, client_port: int = 50000) -> None:
        self.socket((HERE, port), (client, client_port), ESTABLISHED)

    def clients(self, environment: dict[str, str] | None = None) -> list[str]:
        return [str(item.client) for item in ssh_sessions(self.root, environment or {})]

    def terminal(self, pid: int, number: int = 1) -> None:
        """Put a process on /dev/pts/NUMBER; its name may look like the fields behind it."""
        words = f"{pid} (a) b (c) S 1 {pid} {pid} {136 << 8 | number} -1 0"
        (self.root / str(pid) / "stat").write_text(words + "\n")

    def serves_tun(self, pid: int, name: str) -> None:
        folder = self.root / str(pid)
        (folder / "fd" / "99").symlink_to("/dev/net/tun")
        (folder / "fdinfo").mkdir()
        (folder / "fdinfo" / "99").write_text(f"pos:\t0\nflags:\t0104002\niff:\t{name}\n")
