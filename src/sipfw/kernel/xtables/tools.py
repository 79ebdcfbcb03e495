"""The legacy iptables-save and -restore programs.

Only text goes in and out; what the rules mean is nobody's business here.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sipfw.errors import BackendError
from sipfw.kernel.xtables.save_text import SavedTable, parse_save
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.host.runner import Completed, Runner

TableKey = tuple[Family, str]
Tables = dict[TableKey, SavedTable]

_PROGRAM = {Family.IP: "iptables-legacy", Family.IP6: "ip6tables-legacy"}
LEGACY_RESTORERS = {family: f"{name}-restore" for family, name in _PROGRAM.items()}
# What the tools say when the kernel lacks the family or its legacy core.
_ABSENT = ("Address family not supported", "Table does not exist", "who? (do you need to insmod?)")


@dataclass(frozen=True, slots=True)
class LegacyTools:
    """Runs the tools; `lock_file` is the xtables lock that they shall take."""

    runner: Runner
    lock_file: str | None = None
    legacy: ClassVar[bool] = True

    @contextmanager
    def with_private_lock(self) -> Iterator[LegacyTools]:
        """Give tools for a caller that holds the real lock, which they would wait for.

        iptables honours XTABLES_LOCKFILE; where it does not, `-w` ends the wait with an error.
        """
        with tempfile.TemporaryDirectory(prefix="sipfw-lock-") as directory:
            yield replace(self, lock_file=str(Path(directory, "xtables.lock")))

    def existing(self, family: Family) -> Tables:
        """Return the tables that exist in this network namespace, without creating any."""
        done = self._run(family, "save", "-c")
        _require(done, f"{_PROGRAM[family]}-save")
        return {(family, table.name): table for table in parse_save(done.stdout)}

    def table(self, family: Family, name: str) -> SavedTable | None:
        """Return one table, created empty if need be; None where the kernel has no such table."""
        # The listing of all tables may be known already.
        found = self.existing(family).get((family, name))
        if found is not None:
            return found
        done = self._run(family, "save", "-c", "-t", name)
        if done.returncode != 0 and any(text in done.stderr for text in _ABSENT):
            return None
        _require(done, f"{_PROGRAM[family]}-save -t {name}")
        return parse_save(done.stdout)[0]

    def test(self, family: Family, text: str) -> None:
        """Have iptables-restore parse the text; the kernel is not changed."""
        self._feed(family, text, "--test")

    def load(self, family: Family, text: str) -> None:
        """Load the text, each table of it in one step: all of a table or nothing.

        The program fetches a table and commits it some milliseconds later. The kernel refuses the
        commit if the number of entries is another one by then, and only then: see iptc_table.
        """
        self._feed(family, text, "-w", "5", "-c")

    def _feed(self, family: Family, text: str, *options: str) -> None:
        done = self._run(family, "restore", "--noflush", *options, stdin=text)
        _require(done, f"{_PROGRAM[family]}-restore")

    def _run(self, family: Family, tool: str, *arguments: str, stdin: str = "") -> Completed:
        argv = [f"{_PROGRAM[family]}-{tool}", *arguments]
        env = {} if self.lock_file is None else {"XTABLES_LOCKFILE": self.lock_file}
        return self.runner.run(argv, stdin=stdin, env=env)


def _require(done: Completed, what: str) -> None:
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise BackendError(f"{what}: {said}")
