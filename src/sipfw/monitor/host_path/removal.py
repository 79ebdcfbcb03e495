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
    return None if runner is None else removal_of((family, table, step.chain, step.number), runner)


def removal_of(rule: tuple[str, str, str, int], runner: Runner) -> str | None:
    """Return it for a rule by family or program, table, chain, and number counted from 0."""
    tool, table, chain, number = rule
    if "tables" in tool:
        command = shlex.join([tool, "-t", table, "-D", chain, str(number + 1)])
        return command if command.isprintable() else None
    if not all(map(_NAME.fullmatch, rule[:3])):
        return None
    try:
        done = runner.run(["nft", "-a", "-t", "list", "chain", *rule[:3]])
    except BackendError:
        return None
    handles = _handles(done.stdout) if done.returncode == 0 else []
    if number >= len(handles):
        return None
    return shlex.join(["nft", "delete", "rule", *rule[:3], "handle", handles[number]])


def _handles(text: str) -> list[str]:
    """Return the numbers of a chain's rules in order; one rule may be listed over several lines."""
    found = (re.search(r" # handle (\d+)$", line) for line in text.splitlines()[2:])
    return [item[1] for item in found if item is not None]
