"""A host that a test makes up: files below a folder, and programs that say what they are told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.host.runner import Completed, MissingProgramError
from sipfw.monitor.doctor.host import HostView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sipfw.monitor.doctor.findings import Diagnosis

NOW = 1_800_000_000.0
RELEASE = "6.1.0-test"


@dataclass
class Programs:
    """The runner: command line -> standard output. Everything else is not installed."""

    answers: dict[str, str] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        del stdin, timeout, env
        words = " ".join(argv)
        self.asked.append(words)
        if words in self.failing:
            return Completed(1, "", self.failing[words])
        if words in self.answers:
            return Completed(0, self.answers[words], "")
        raise MissingProgramError(f"{argv[0]}: program not found")

    def installed(self, name: str) -> bool:
        return any(words.split()[0] == name for words in {**self.answers, **self.failing})


@dataclass
class Fake:
    """Builds the host."""

    folder: Path
    programs: Programs = field(default_factory=Programs)

    def __post_init__(self) -> None:
        self.file("proc/sys/kernel/osrelease", f"{RELEASE}\n")
        self.file(f"modules/{RELEASE}/modules.dep", "")
        self.file(f"modules/{RELEASE}/modules.builtin", "")
        self.nft("")

    def file(self, path: str, text: str | bytes = "") -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        return target

    def link(self, path: str, to: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(to)

    def setting(self, name: str, value: object) -> None:
        self.file(f"proc/sys/{name}", f"{value}\n")

    def nft(self, ruleset: str) -> None:
        """Let nft list this; every table of it is listed alone, too."""
        self.programs.answers["nft -t list ruleset"] = ruleset
        heads = [line.split()[:3] for line in ruleset.splitlines() if line.startswith("table ")]
        names = "".join(f"{' '.join(head)}\n" for head in heads)
        self.programs.answers["nft list tables"] = names
        for _, family, table in heads:
            start = ruleset.index(f"table {family} {table} {{")
            text = ruleset[start : ruleset.index("\n}", start) + 2]
            self.programs.answers[f"nft -t list table {family} {table}"] = text

    def iptables_nft(self, ip: str = "", ip6: str = "") -> None:
        self.programs.answers["iptables-nft-save -c"] = ip
        self.programs.answers["ip6tables-nft-save -c"] = ip6
        # nft lists these tables, too, each in its own words.
        self.programs.answers["nft -t list ruleset"] = "".join(
            f"table {family} {line[1:]} {{\n}}\n"
            for family, text in (("ip", ip), ("ip6", ip6))
            for line in text.splitlines()
            if line.startswith("*")
        )

    def legacy(self, ip: str = "", ip6: str = "") -> None:
        for name, text in (("ip_tables_names", ip), ("ip6_tables_names", ip6)):
            names = [line[1:] for line in text.splitlines() if line.startswith("*")]
            self.file(f"proc/net/{name}", "".join(f"{item}\n" for item in names))
        self.programs.answers["iptables-legacy-save -c"] = ip
        self.programs.answers["ip6tables-legacy-save -c"] = ip6

    def host(self, **others: object) -> HostView:
        values: dict[str, object] = {
            "root": self.folder / "root",
            "proc": self.folder / "proc",
            "sys": self.folder / "sys",
            "modules": self.folder / "modules",
            "runner": self.programs,
            "is_root": True,
            "now": NOW,
            "owner": os.geteuid(),
            "installed": self.programs.installed,
        }
        return HostView(**{**values, **others})  # type: ignore[arg-type]  # each of its field's type


def saved(*rules: str, table: str = "filter", policy: str = "ACCEPT", chains: str = "") -> str:
    """Return what iptables-save prints for one table."""
    hooks = ["PREROUTING"] if table in {"raw", "nat"} else ["INPUT"]
    heads = [f":{hook} {policy} [0:0]" for hook in hooks]
    heads += [f":{name} - [0:0]" for name in chains.split()]
    return "\n".join([f"*{table}", *heads, *(f"[0:0] {rule}" for rule in rules), "COMMIT", ""])


def by_name(findings: Sequence[Diagnosis]) -> dict[str, Diagnosis]:
    return {item.name: item for item in findings}
