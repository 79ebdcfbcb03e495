"""`sipfw check`: whether a policy is sound, and where each value comes from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import answered, did
from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options
from sipfw.cli.output import complain, remark, say_json, say_lines, table
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.deploy.names.cache import Resolution


# More addresses of a name than this are counted.
_LISTED = 8


@click.command("check")
@policy_options
@click.option("--explain", is_flag=True, help="Print every value and where it comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-ipset", is_flag=True, help="Check for a host without ipset.")
def command(
    *,
    choice: Choice,
    explain: bool,
    as_json: bool,
    no_ipset: bool,
) -> int:
    """Check a policy. Needs no root and no iptables, and changes nothing."""
    work = partial(_check, choice, explain=explain, as_json=as_json, no_ipset=no_ipset)
    return answered("check", work) if as_json and not explain else work()


def _check(choice: Choice, *, explain: bool, as_json: bool, no_ipset: bool) -> int:
    from sipfw.lower.iptables import lower
    from sipfw.lower.without_ipset import warnings
    from sipfw.policy.explain import explained
    from sipfw.ruleset.memory import memory_of, memory_text

    loaded = load_policy(choice)
    remark(loaded.blockers())
    values = explained(loaded)
    if explain and as_json:
        say_json([{"field": f, "value": v, "origin": o} for f, v, o in values])
    elif explain:
        say_lines(table(values, head=False))
    wanted = compile_wanted(loaded)
    _say_names(wanted.resolution)
    if no_ipset:
        wanted.loaded.require_setless()
        remark(warnings(wanted.ruleset))
    plan = lower(wanted.ruleset, ipset=not no_ipset)
    rules = sum(len(chain.rules) for tab in plan.tables for chain in tab.chains)
    sizes = (
        pluralize(len(loaded.policy.trusted_peers), "trusted peer"),
        pluralize(rules, "rule"),
        pluralize(len(plan.sets), "set"),
        memory_text(memory_of(wanted.ruleset)),
    )
    did(changed=None, sound=True, rules=rules)
    complain(f"the policy is sound: {', '.join(sizes)}")
    return Exit.INCOMPLETE if wanted.resolution.failures else Exit.CLEAN


def _say_names(resolution: Resolution) -> None:
    """Say what host names mean now, and by which record: SRV may lead elsewhere than expected."""
    from sipfw.deploy.names.resolve import name_of
    from sipfw.monitor.names_behind import member_text

    for key, known in resolution.known.items():
        for member in known.members[:_LISTED]:
            address = member.network.network_address
            complain(f"{name_of(key)} is {address}{member_text(member)}")
        if len(known.members) > _LISTED:
            complain(f"{name_of(key)} has {len(known.members) - _LISTED} more")
