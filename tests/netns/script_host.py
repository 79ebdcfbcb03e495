"""A throw-away host for the rendered shell script: a network namespace, tools and a file tree."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab import namespaces
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.policy.load import Request, load
from sipfw.render.script import script_text

if TYPE_CHECKING:
    import subprocess

    from sipfw.ruleset.model import Ruleset

FLAVOURS = ("iptables-legacy", "iptables-nft")
SHELLS = ("dash", "bash")
SETTINGS = (
    "admin.networks=[192.0.2.0/28, '2001:db8::/64']",
    (
        "trusted_peers=["
        "{name: a, signalling: [203.0.113.0/24, '2001:db8:5::/64'], tier: large},"
        "{name: b, signalling: [198.51.100.7], source_ports: [5060, 5070]},"
        "{name: c, signalling: [198.51.100.8], transports: [udp, tls]}]"
    ),
)

# Somebody else's rules, with counters, in our tables and hooks.
FOREIGN = """\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
[7:700] -A PREROUTING -s 192.0.2.99/32 -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
[5:300] -A INPUT -p tcp --dport 8443 -m comment --comment "\\"sipfw:\\" -j SIP_HOST" -j DOCKER
[11:1200] -A INPUT -j ACCEPT
[3:180] -A DOCKER -s 198.51.100.0/24 -j RETURN
COMMIT
"""

# The widely pasted script, as iptables-save prints it.
GUIDE = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:SIP_RATE_LIMIT - [0:0]
:SIP_SCANNER_BLOCK - [0:0]
:SIP_TRUSTED - [0:0]
[9:900] -A INPUT -i lo -j ACCEPT
[8:800] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
[7:700] -A INPUT -p udp -m udp --dport 5060 -j SIP_TRUSTED
[6:600] -A INPUT -p udp -m udp --dport 5060 -j SIP_SCANNER_BLOCK
[5:500] -A INPUT -p udp -m udp --dport 5060 -g SIP_RATE_LIMIT
[4:400] -A INPUT -j DROP
[0:0] -A SIP_RATE_LIMIT -m recent --set --name SIP --mask 255.255.255.255 --rsource
[0:0] -A SIP_RATE_LIMIT -p udp -m udp --dport 5060 -j ACCEPT
[0:0] -A SIP_SCANNER_BLOCK -m string --string "friendly-scanner" --algo bm --to 65535 -j DROP
[0:0] -A SIP_TRUSTED -s 203.0.113.10/32 -j ACCEPT
[0:0] -A SIP_TRUSTED -j SIP_SCANNER_BLOCK
COMMIT
"""

# The rehearsal has a lock file of its own, so this fails when it counts only.
FAIL_FOR_REAL = """\
if [ -z "${XTABLES_LOCKFILE:-}" ]; then
	case "$*" in *--noflush*) echo "restore: line 3 failed: refused by the test" >&2; exit 1 ;; esac
fi"""


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
        env = {"SIPFW_ROOT": str(self.root), "IPTABLES": self.iptables, **self.env}
        return namespaces.run(self.namespace, argv, stdin, env=env)

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
        """Return rules and chains of both families, but no empty tables, and elements of sets."""
        lines: list[str] = []
        for program in (self.iptables, self.iptables.replace("iptables", "ip6tables")):
            tables = self.ok(f"{program}-save", *(["-c"] if counters else [])).split("*")[1:]
            for table in sorted(tables):
                text = [line for line in table.splitlines() if not line.startswith("#")]
                if not counters:
                    text = [line.partition(" [")[0] for line in text]
                empty = all(line[0] in ":C" and " - " not in f"{line} " for line in text[1:])
                if not empty or "DROP" in table:
                    lines += [program, *text]
        return lines + self.sets()

    def sets(self) -> list[str]:
        saved = self.ok("ipset", "save").splitlines()
        return sorted(line.partition(" timeout")[0] for line in saved if line[:3] == "add")

    def foreign_rules(self) -> list[str]:
        """Return the rules that are not ours, with counters."""
        listing = self.listing(counters=True)
        return [line for line in listing if line[:1] == "[" and '--comment "sipfw:' not in line]

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
        tool.write_text(f'#!/bin/sh\n{text}\nexec {real} "$@"\n')
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


@cache
def ruleset(profile: str = "default", *settings: str) -> Ruleset:
    return compile_policy(
        load(Request(profile=profile, switch="freepbx", settings=(*SETTINGS, *settings)))
    )


@cache
def script(profile: str = "default", *settings: str, ipset: bool = True) -> str:
    rules = ruleset(profile, *settings)
    return script_text(lower(rules, ipset=ipset), rules.sysctls, ruleset=rules)
