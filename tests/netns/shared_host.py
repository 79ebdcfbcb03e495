"""A host of the lab on which sipfw shares the packet filter with other tools."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from lab import warm
from packets.firewall import Iptables, Nftables

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from lab import Node

BACKENDS = ("iptables-legacy", "iptables-nft", "nftables")
COMMANDS = ("iptables", "ip6tables")
OURS = re.compile(r"sipfw|^:SIP(FW)?_")
IPTABLES_TABLES = ("raw", "mangle", "nat", "filter", "security")
EXPIRY = re.compile(r"(?<=expires )\w+")
SECONDS_LEFT = re.compile(r"(?<=timeout )\d+")
BUILT_IN = re.compile(r":\S+ ACCEPT \[0:0\]")


@dataclass(frozen=True, slots=True)
class SharedHost:
    """A namespace, the backend that sipfw uses there, and a folder for its files."""

    node: Node
    backend: str
    folder: Path

    @property
    def flavour(self) -> str:
        """Name the iptables that the neighbours use; beside nftables it is the nf_tables one."""
        return "legacy" if self.backend == "iptables-legacy" else "nft"

    @property
    def env(self) -> dict[str, str]:
        # Hosts of other tests need not wait for the tables of this one.
        return {"XTABLES_LOCKFILE": str(self.folder / "xtables.lock")}

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def kernel(self) -> Iptables | Nftables:
        if self.backend == "nftables":
            return Nftables(self.node)
        return Iptables(self.node, self.flavour, self.folder / "xtables.lock")

    def run(self, *argv: str, text: str | None = None) -> str:
        return self.node.run(argv, text, env=self.env).stdout

    def tool(self, command: str, *options: str, text: str | None = None) -> str:
        """Run iptables-restore, ip6tables-save and so on, of the neighbours' flavour."""
        program, _, verb = command.partition("-")
        return self.run("-".join(filter(None, (program, self.flavour, verb))), *options, text=text)

    def sipfw(self, *words: str) -> subprocess.CompletedProcess[str]:
        whole = [words[0], "--root", str(self.root), *words[1:]]
        return warm.run(self.node.namespace, whole, env=self.env)

    def must(self, *words: str) -> None:
        done = self.sipfw(*words)
        assert done.returncode == 0, done.stdout + done.stderr

    def policy(self, content: Mapping[str, Any]) -> str:
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(dict(content)))
        return str(path)

    def apply(self, content: Mapping[str, Any], *more: str) -> None:
        self.must("apply", "--backend", self.backend, "--policy", self.policy(content), *more)

    def everything(self) -> str:
        """Return all that both kinds of tables and ipset hold, whoever made it."""
        programs = [f"{c}-{flavour}-save" for c in COMMANDS for flavour in ("legacy", "nft")]
        listings = [self.run(program, "-c") for program in programs]
        return "\n".join([*listings, self.run("nft", "list", "ruleset"), self.run("ipset", "save")])

    def foreign(self) -> dict[str, list[str]]:
        """Return what is not ours, with its counters, in its order, by table.

        A table without rules and chains is left out: a legacy one cannot go away any more.
        """
        found: dict[str, list[str]] = {}
        for command in COMMANDS:
            for name, lines in _tables(self.tool(f"{command}-save", "-c")):
                if not all(BUILT_IN.fullmatch(line) for line in lines):
                    found[f"{command} {name}"] = lines
        for line in self.run("nft", "list", "tables").splitlines():
            _, family, name = line.split()
            if (family, name) != ("inet", "sipfw") and name not in IPTABLES_TABLES:
                # Handles show that a rule is the same one, and not another with its text.
                text = self.run("nft", "-a", "list", "table", family, name)
                found[line] = EXPIRY.sub("-", text).splitlines()
        saved = SECONDS_LEFT.sub("-", self.run("ipset", "save")).splitlines()
        found["ipset"] = sorted(line for line in saved if not OURS.search(line))
        return found


def _tables(saved: str) -> list[tuple[str, list[str]]]:
    blocks = re.findall(r"^\*(\w+)\n(.*?)^COMMIT", saved, re.MULTILINE | re.DOTALL)
    return [
        (name, [line for line in text.splitlines() if not OURS.search(line)])
        for name, text in blocks
    ]
