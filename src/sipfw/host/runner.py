"""Running host programs: an argument list in, exit status and two texts out.

Knows which package brings a program and nothing about what the programs mean. There is no shell
and nothing of the caller's environment: a root tool that inherits PATH or PYTHONPATH runs
whatever the caller's directory holds.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# Program -> (Debian package, RHEL package).
PACKAGES = {
    "bridge": ("iproute2", "iproute"),
    "conntrack": ("conntrack", "conntrack-tools"),
    "ip": ("iproute2", "iproute"),
    "ip6tables-legacy-restore": ("iptables", "iptables-legacy (EPEL)"),
    "ip6tables-legacy-save": ("iptables", "iptables-legacy (EPEL)"),
    "ip6tables-nft-restore": ("iptables", "iptables-nft"),
    "ip6tables-nft-save": ("iptables", "iptables-nft"),
    "ipset": ("ipset", "ipset"),
    "iptables": ("iptables", "iptables-nft"),
    "iptables-legacy-restore": ("iptables", "iptables-legacy (EPEL)"),
    "iptables-legacy-save": ("iptables", "iptables-legacy (EPEL)"),
    "iptables-nft-restore": ("iptables", "iptables-nft"),
    "iptables-nft-save": ("iptables", "iptables-nft"),
    "modprobe": ("kmod", "kmod"),
    "nft": ("nftables", "nftables"),
    "sysctl": ("procps", "procps-ng"),
    "systemctl": ("systemd", "systemd"),
    "systemd-run": ("systemd", "systemd"),
    "wg": ("wireguard-tools", "wireguard-tools"),
}


class MissingProgramError(BackendError):
    """The host does not have the program."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left; a negative `returncode` is the signal that killed it."""

    returncode: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Runs one program to its end."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run `argv` with `stdin` as its input; `env` is added to the fixed environment."""
        ...


class SubprocessRunner:
    """The runner that really runs programs."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run `argv`; a missing program or a passed deadline is a BackendError."""
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                check=False,
                encoding="utf-8",
                # Foreign rules may hold any byte (comments, string patterns), and a snapshot
                # must go back into the kernel exactly as it came out.
                errors="surrogateescape",
                timeout=timeout,
                env={"PATH": HOST_PATH, "LC_ALL": "C", **(env or {})},
            )
        except FileNotFoundError as error:
            raise _missing(argv[0]) from error
        except PermissionError as error:
            raise BackendError(f"{argv[0]}: may not be executed") from error
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"{argv[0]}: no answer within {timeout:g} s, ended") from error
        return Completed(done.returncode, done.stdout, done.stderr)


def _missing(program: str) -> MissingProgramError:
    if program not in PACKAGES:
        return MissingProgramError(f"{program}: program not found in {HOST_PATH}")
    debian, redhat = PACKAGES[program]
    packages = (
        f"install package {debian}"
        if debian == redhat
        else f"install package {debian} (Debian, Ubuntu) or {redhat} (RHEL, Rocky, Alma)"
    )
    return MissingProgramError(f"{program}: program not found", hint=packages)
