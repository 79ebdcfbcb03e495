"""Imitates a boot: the kernel empty, then every unit's own commands in the order of the units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared_host import COMMANDS

from lab import warm
from sipfw.saved.nft_dump import nft_dump
from sipfw.saved.xtables_dump import xtables_dump

if TYPE_CHECKING:
    from pathlib import Path

    from shared_host import SharedHost

TABLES = ("raw", "mangle", "nat", "filter")
BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# Which of them a table has.
HOOKS = {"raw": (0, 3), "mangle": (0, 1, 2, 3, 4), "nat": (0, 1, 3, 4), "filter": (1, 2, 3)}


@dataclass(frozen=True)
class Boots:
    """A host that is saved, emptied and started."""

    host: SharedHost

    @property
    def etc(self) -> Path:
        return self.host.root / "etc"

    def enable(self, *services: str) -> None:
        """Make the links of `systemctl enable`."""
        folder = self.etc / "systemd/system/multi-user.target.wants"
        folder.mkdir(parents=True, exist_ok=True)
        for name in services:
            (folder / f"{name}.service").symlink_to(f"/lib/systemd/system/{name}.service")

    def save_persistent(self, *, ipsets: bool = False) -> None:
        """Do what netfilter-persistent save does, plugins 10-ipset, 15-ip4tables, 25-ip6tables."""
        folder = self.etc / "iptables"
        folder.mkdir(parents=True, exist_ok=True)
        for command, file in zip(COMMANDS, ("rules.v4", "rules.v6"), strict=True):
            (folder / file).write_text(self.host.tool(f"{command}-save"))
        if ipsets:
            (folder / "ipsets").write_text(self.host.run("ipset", "save"))
            plugin = self.host.root / "usr/share/netfilter-persistent/plugins.d/10-ipset"
            plugin.parent.mkdir(parents=True, exist_ok=True)
            plugin.touch()

    def start_persistent(self) -> bool:
        """Do what netfilter-persistent start does; false when something was refused."""
        folder = self.etc / "iptables"
        worked = True
        if (folder / "ipsets").exists():
            worked = self._tried("ipset", "restore", "-exist", file=folder / "ipsets")
        for command, file in zip(COMMANDS, ("rules.v4", "rules.v6"), strict=True):
            program = f"{command}-{self.host.flavour}-restore"
            worked = self._tried(program, file=folder / file) and worked
        return worked

    def save_nft(self, head: str = "") -> Path:
        """Do what guides say: nft list ruleset > /etc/nftables.conf."""
        path = self.etc / "nftables.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + self.host.run("nft", "list", "ruleset"))
        return path

    def start_nft(self) -> bool:
        """Do what nftables.service does."""
        done = self.host.node.run(
            ["nft", "-f", str(self.etc / "nftables.conf")], check=False, env=self.host.env
        )
        return done.returncode == 0

    def power_cut(self) -> None:
        """Empty the kernel."""
        if self.host.flavour == "legacy":
            for command in COMMANDS:
                text = "".join(_empty(table) for table in TABLES)
                self.host.tool(f"{command}-restore", text=text)
        self.host.run("nft", "flush", "ruleset")
        # The kernel lets go of the sets of rules that are gone a moment later.
        for _ in range(50):
            if self._tried("ipset", "destroy"):
                return
        raise AssertionError(self.host.run("ipset", "list", "-t"))

    def start_unit(self, name: str) -> str:
        """Run the commands of one of our units; return what they said."""
        text = (self.etc / "systemd/system" / f"{name}.service").read_text()
        said = ""
        for line in re.findall(r"^ExecStart(?:Pre)?=(.*)$", text, re.MULTILINE):
            words = line.split()
            at = max(i for i, word in enumerate(words) if word.endswith("sipfw"))
            done = warm.run(self.host.node.namespace, words[at + 1 :], env=self.host.env)
            said += done.stderr
            assert done.returncode == 0 or line.startswith("-"), said
            assert "Traceback" not in said
        return said

    def others(self) -> list[str]:
        """Return the rules and sets of others with their places, without counters."""
        found: list[str] = []
        if self.host.flavour == "legacy":
            for command in COMMANDS:
                text = xtables_dump(self.host.tool(f"{command}-save")).without_ours()
                lines = text.splitlines()
                found += [f"{command} {line}" for line in lines if line.startswith("-A")]
        text = nft_dump(self.host.run("nft", "-s", "list", "ruleset")).without_ours()
        place: list[str] = []
        for line in map(str.strip, text.splitlines()):
            if line.endswith("{"):
                place.append(line)
            elif line == "}":
                place.pop()
            elif line and not line.startswith("type "):
                found.append(" ".join([*place, line]))
        # The order of tables means nothing, that of rules in a chain is kept.
        return sorted(found, key=lambda item: item.partition("{")[0])

    def _tried(self, *argv: str, file: Path | None = None) -> bool:
        text = None if file is None else file.read_text()
        done = self.host.node.run(argv, text, check=False, env=self.host.env)
        return done.returncode == 0


def _empty(table: str) -> str:
    chains = "".join(f":{BUILT_IN[number]} ACCEPT [0:0]\n" for number in HOOKS[table])
    return f"*{table}\n{chains}COMMIT\n"
