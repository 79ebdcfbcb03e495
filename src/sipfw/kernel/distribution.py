"""What system this is, and by which command a package of it is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING

from sipfw.host.bounded_files import OddFileError, read_at_most
from sipfw.kernel.modules import openwrt_package_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_RELEASE_FILE = 1 << 16
_LINE = re.compile(r"^(ID|ID_LIKE|VERSION_ID)=[\"']?([\w. -]*)", re.MULTILINE)

# `# CONFIG_NETFILTER_XT_MATCH_U32 is not set` in kernel-x86_64-rhel.config of 5.14.0-362.el9_3.
NOT_BUILT = frozenset({"xt_u32"})
_WITHOUT_U32 = 9

RED_HAT = frozenset({"rhel", "centos", "fedora", "rocky", "almalinux"})
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
_SUSE = frozenset({"suse", "opensuse", "sles"})


@dataclass(frozen=True, slots=True)
class Distribution:
    """`ids` are the system's own `name` and those of the systems that it is like."""

    name: str = ""
    ids: frozenset[str] = frozenset()
    major: int = 0

    @property
    def is_red_hat(self) -> bool:
        """Tell whether it is RHEL or one of its kin."""
        return bool(self.ids & RED_HAT)

    def modules_command(self, modules: Sequence[str]) -> str | None:
        """Return the command for modules that are not in the kernel's own package here."""
        if "openwrt" in self.ids:
            return self._install(dict.fromkeys(map(openwrt_package_of, modules)))
        if self.is_red_hat:
            return self._red_hat_modules(modules)
        if "ubuntu" in self.ids:
            return "apt install linux-modules-extra-$(uname -r)"
        if "debian" in self.ids:
            return f"apt install linux-image-{_DEBIAN.get(machine(), machine())} && reboot"
        if "alpine" in self.ids:
            return "apk add linux-lts && reboot"
        if self.ids & _SUSE:
            return "zypper install kernel-default && reboot"
        return "pacman -S linux && reboot" if "arch" in self.ids else None

    def kmod_command(self) -> str:
        """Return the command that brings modprobe."""
        return self._install(["kmod"])

    def library_command(self, extensions: Sequence[str]) -> str:
        """Return the command that brings extensions of the iptables program."""
        if "openwrt" in self.ids:
            return self._install([f"iptables-mod-{name.lower()}" for name in extensions])
        if self.is_red_hat:
            package = "iptables" if self._is_old_red_hat else "iptables-libs"
            return f"{self._red_hat_tool} reinstall {package}"
        if "alpine" in self.ids:
            return "apk fix iptables"
        return "apt install --reinstall iptables"

    @property
    def _is_old_red_hat(self) -> bool:
        return 0 < self.major < 8

    @property
    def _red_hat_tool(self) -> str:
        return "yum" if self._is_old_red_hat else "dnf"

    def _red_hat_modules(self, modules: Sequence[str]) -> str | None:
        if self._is_old_red_hat:
            # CentOS 7 has one package of all modules.
            return "yum install kernel && reboot"
        if set(modules) <= NOT_BUILT and self.major >= _WITHOUT_U32 and self.name != "fedora":
            return None
        return "dnf install kernel-modules-extra-$(uname -r)"

    def _install(self, packages: Sequence[str] | dict[str, None]) -> str:
        names = " ".join(packages)
        if "openwrt" in self.ids:
            return f"opkg install {names}"
        if self.is_red_hat:
            return f"{self._red_hat_tool} install {names}"
        if "alpine" in self.ids:
            return f"apk add {names}"
        if self.ids & _SUSE:
            return f"zypper install {names}"
        return f"pacman -S {names}" if "arch" in self.ids else f"apt install {names}"


def read_distribution(root: Path = Path("/")) -> Distribution:
    """Read /etc/os-release below `root`; nothing is known where there is none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = read_at_most(root / name, _RELEASE_FILE)
        except (OSError, OddFileError):
            continue
        found = dict(reversed(_LINE.findall(text)))
        own = found.get("ID", "")
        ids = frozenset(f"{own} {found.get('ID_LIKE', '')}".split())
        major = re.match(r"\d{1,4}", found.get("VERSION_ID", ""))
        return Distribution(own, ids, int(major[0]) if major else 0)
    return Distribution()
