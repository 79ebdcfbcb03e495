"""The iptables-save and -restore programs of the nf_tables flavour.

Only text goes in and out. A listing of this flavour is never loaded as a whole: iptables 1.8.9
prints some rules that nft made as wider ones (`tcp dport { 1, 2 } accept` as `-p tcp -j ACCEPT`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sipfw.errors import BackendError
from sipfw.kernel.backend import UnworkableError
from sipfw.kernel.xtables.libiptc.limits import OUR_TABLES
from sipfw.kernel.xtables.save_text import parse_save
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from sipfw.host.runner import Completed, Runner
    from sipfw.kernel.xtables.tools import Tables

PROGRAM = {Family.IP: "iptables-nft", Family.IP6: "ip6tables-nft"}
RESTORERS = {family: f"{name}-restore" for family, name in PROGRAM.items()}
_UNREADABLE = re.compile(r"^# Table `(\w+)' is incompatible", re.MULTILINE)
_LINE = re.compile(r"line:? (\d+)")
# A family's restore takes 10 ms for 200 rules; the deadline is for a hung kernel.
_TIMEOUT = 60.0


class OnlyNftError(UnworkableError):
    """A table of iptables-nft holds rules that iptables-nft cannot show."""


@dataclass(frozen=True, slots=True)
class NftFlavourTools:
    """Runs the tools."""

    runner: Runner
    legacy: ClassVar[bool] = False

    def existing(self, family: Family) -> Tables:
        """Return the tables that exist in this network namespace, without creating any."""
        tables, unreadable = self.listing(family)
        # Their chains are left out of the listing: what we do not see we would load twice.
        lost = sorted(unreadable & {*OUR_TABLES})
        if lost:
            names = ", ".join(f"{family} {name}" for name in lost)
            raise OnlyNftError(
                f"{PROGRAM[family]}-save cannot read table {names}: only nft can show its rules",
                hint="move those rules to a table of their own, or use --backend nftables",
            )
        return tables

    def listing(self, family: Family) -> tuple[Tables, frozenset[str]]:
        """Return the tables, and the names of those that hold something only nft can show."""
        program = f"{PROGRAM[family]}-save"
        done = self._run(program, "-c")
        if done.returncode != 0:
            raise BackendError(f"{program}: {_said(done)}")
        unreadable = frozenset(_UNREADABLE.findall(done.stdout + done.stderr))
        return {(family, table.name): table for table in parse_save(done.stdout)}, unreadable

    def test(self, family: Family, text: str) -> None:
        """Have iptables-restore parse the text; the kernel is not asked."""
        self._feed(family, text, "--test")

    def load(self, family: Family, text: str) -> None:
        """Load the text, each table of it in one transaction: all of a table or nothing."""
        # -w means nothing to this flavour today. -c takes the counters in brackets.
        self._feed(family, text, "-w", "5", "-c")

    def _feed(self, family: Family, text: str, *options: str) -> None:
        program = f"{PROGRAM[family]}-restore"
        done = self._run(program, "--noflush", *options, stdin=text)
        if done.returncode != 0:
            raise BackendError(explained(program, done, text))

    def _run(self, program: str, *arguments: str, stdin: str = "") -> Completed:
        return self.runner.run([program, *arguments], stdin=stdin, timeout=_TIMEOUT)


def explained(program: str, done: Completed, text: str) -> str:
    """Return what the program said, with the line of the text that it blames."""
    said = _said(done)
    found = _LINE.search(said)
    lines = text.split("\n")
    if found is None or not 1 <= int(found[1]) <= len(lines):
        return f"{program}: {said}"
    return f"{program}: {said}: {lines[int(found[1]) - 1]}"


def _said(done: Completed) -> str:
    """Return the message on one line, without the advice to read the help."""
    lines = [line.strip() for line in done.stderr.split("\n")]
    kept = [line for line in lines if line and not line.startswith(("Try `", "# Warning"))]
    if done.returncode < 0:
        kept.append(f"ended by signal {-done.returncode}")
    return " ".join(kept) or f"exit status {done.returncode}"
