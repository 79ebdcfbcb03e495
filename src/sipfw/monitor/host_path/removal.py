"""The command that takes a rule of somebody else out."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.host.runner import Runner
    from sipfw.monitor.host_path.ways import HookChains, Step

# Of another form, nft would not take it for the name of a table or chain.
_NAME = re.compile(r"[A-Za-z_][\w/.-]*")


def removal(way: HookChains, step: Step, runner: Runner | None = None) -> str | None:
    """Return it; None where nobody can tell.

    iptables counts rules, nft gives each a number of its own, which only a listing shows.
    """
    if way.xtables:
        command = shlex.join([*way.tool, "-D", step.chain, str(step.number + 1)])
        return command if command.isprintable() else None
    _, family, table, _ = way.tool
    names = (family, table, step.chain)
    if runner is None or not all(map(_NAME.fullmatch, names)):
        return None
    try:
        done = runner.run(["nft", "-a", "-t", "list", "chain", *names])
    except BackendError:
        return None
    handles = _handles(done.stdout) if done.returncode == 0 else []
    if step.number >= len(handles):
        return None
    return shlex.join(["nft", "delete", "rule", *names, "handle", handles[step.number]])


def _handles(text: str) -> list[str]:
    """Return the numbers of a chain's rules in order; one rule may be listed over several lines."""
    found = (re.search(r" # handle (\d+)$", line) for line in text.splitlines()[2:])
    return [item[1] for item in found if item is not None]
