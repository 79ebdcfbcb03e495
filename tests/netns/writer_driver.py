"""Runs sipfw while another program changes the packet filter between its snapshot and its commit.

`writer_driver.py PLAN WORDS...` with a plan in JSON: `writes` are programs to run, `waits` whether
sipfw waits for them, `always` whether they run before every commit or before the first one only,
`late` whether they run after sipfw's last look before libiptc commits table filter, `fails` whether
sipfw finds its rules wrong after the commit and goes back, which is a commit as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sipfw.cli import main as sipfw
from sipfw.host.runner import HOST_PATH, SubprocessRunner
from sipfw.kernel.xtables import engine
from sipfw.kernel.xtables import legacy as iptables
from sipfw.kernel.xtables.libiptc.patches import load_iptc
from sipfw.kernel.xtables.libiptc.table import KernelTable

# The worker is a process of its own: it gets the same writer around its own commit.
_WORKER = """\
import runpy, sys
sys.path[:0] = [sys.argv.pop(1), {folder!r}]
from writer_driver import Writer
writer = Writer({plan!r})
writer.around_commits_of_libiptc()
runpy.run_module("sipfw.kernel.xtables.libiptc.worker", run_name="__main__")
"""


class Writer:
    """The other program."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan

    def write(self) -> None:
        done = Path(self.plan["done"])
        if done.exists() and not self.plan["always"]:
            return
        with done.open("a") as file:
            file.write("once\n")
        for argv in self.plan["writes"]:
            env = {"PATH": HOST_PATH, "XTABLES_LOCKFILE": self.plan["lock"]}
            # Detached, since sipfw waits for whoever holds the other end of its worker's pipes.
            started = subprocess.Popen(
                argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if self.plan["waits"] and started.wait() != 0:
                sys.exit(f"{argv} failed")

    def around_commits_of_libiptc(self) -> None:
        late = load_iptc().Table
        owner = late if self.plan["late"] else KernelTable
        real = owner.commit

        def commit(table: Any) -> None:
            # The writes are to this table.
            if owner is KernelTable or (type(table) is late and table.name == "filter"):
                self.write()
            real(table)

        owner.commit = commit

    def around_commits_of_programs(self) -> None:
        real = SubprocessRunner.run

        def run(runner: SubprocessRunner, argv: list[str], **options: Any) -> Any:
            loads = argv[0].endswith("-restore") and "--test" not in argv
            if loads or argv == ["nft", "-f", "-"]:
                self.write()
            return real(runner, argv, **options)

        SubprocessRunner.run = run  # type: ignore[method-assign,assignment]


def find_the_rules_wrong(*_: object) -> list[str]:
    return ["a rule is missing"]


def main() -> None:
    plan = json.loads(sys.argv.pop(1))
    Writer(plan).around_commits_of_programs()
    folder = str(Path(__file__).parent)
    iptables._START_WORKER = _WORKER.format(folder=folder, plan=plan)
    if plan["fails"]:
        assert engine.differences
        engine.differences = find_the_rules_wrong
    sipfw()


if __name__ == "__main__":
    main()
