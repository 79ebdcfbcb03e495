"""A throw-away host for the rendered shell script: a network namespace, tools and a file tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Host:
    """A host made of a network namespace, a flavour of iptables, a shell and a file tree."""

    namespace: str
    iptables: str
    shell: str
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *argv],
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
            env={**os.environ, "SIPFW_ROOT": str(self.root), "IPTABLES": self.iptables, **self.env},
        )

    def ok(self, *argv: str, stdin: str = "") -> str:
        done = self.run(*argv, stdin=stdin)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    def script(self, text: str, *words: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "firewall.sh"
        path.write_text(text)
        return self.run(self.shell, str(path), *words)

    def must(self, text: str, *words: str, status: int = 0) -> str:
        done = self.script(text, *words)
        assert done.returncode == status, (done.returncode, done.stderr)
        return done.stderr

    def restore(self, text: str) -> None:
        self.ok(f"{self.iptables}-restore", "-c", stdin=text)

    def listing(self, *, counters: bool = False) -> list[str]:
        """Return rules, sets' elements and chains of both families, without tables that are empty."""
        lines: list[str] = []
        for program in (self.iptables, self.iptables.replace("iptables", "ip6tables")):
            tables = self.ok(f"{program}-save", *(["-c"] if counters else [])).split("*")[1:]
            for table in sorted(tables):
                text = [line for line in table.splitlines() if not line.startswith("#")]
                if not counters:
                    text = [line.partition(" [")[0] for line in text]
                if any(" -A " in f" {line}" or (line[0] == ":" and "ACCEPT" not in line) for line in text[1:]):
                    lines += [program, *text]
        return lines + self.sets()

    def sets(self) -> list[str]:
        saved = self.ok("ipset", "save")
        return sorted(line.partition(" timeout")[0] for line in saved.splitlines() if line[:3] == "add")

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())

    def replace_tool(self, name: str, text: str) -> None:
        """Use a folder with the six programs where one is a script of the test's."""
        folder = self.folder / "tools"
        folder.mkdir(exist_ok=True)
        for program in (self.iptables, self.iptables.replace("iptables", "ip6tables")):
            for tool in (program, f"{program}-save", f"{program}-restore"):
                if not (folder / tool).exists():
                    (folder / tool).symlink_to(f"/usr/sbin/{tool}")
        tool = folder / name
        real = tool.readlink()
        tool.unlink()
        tool.write_text(f"#!/bin/sh\n{text}\nexec {real} \"$@\"\n")
        tool.chmod(0o755)
        self.env["IPTABLES"] = str(folder / self.iptables)

    def hide(self, *names: str) -> None:
        """Make a PATH without some programs."""
        folder = self.folder / "sbin"
        folder.mkdir()
        for place in ("/usr/bin", "/usr/sbin"):
            for program in Path(place).iterdir():
                if program.name not in names and not (folder / program.name).exists():
                    (folder / program.name).symlink_to(program)
        self.env["PATH"] = str(folder)
        self.shell = shutil.which(self.shell) or self.shell
