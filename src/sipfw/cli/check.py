"""`sipfw check`: whether a policy is sound, and where each value comes from."""

from __future__ import annotations

import click

from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options
from sipfw.cli.output import complain, remark, say, say_json, table
from sipfw.errors import Exit
from sipfw.words import counted


@click.command("check")
@policy_options
@click.option("--explain", is_flag=True, help="Print every value with its origin.")
@click.option("--json", "as_json", is_flag=True, help="With --explain: print JSON.")
@click.option("--no-ipset", is_flag=True, help="Check for a host without ipset.")
def command(
    *,
    choice: Choice,
    explain: bool,
    as_json: bool,
    no_ipset: bool,
) -> int:
    """Check a policy. Needs no root and no iptables, and changes nothing."""
    from sipfw.lower.iptables import lower
    from sipfw.lower.setless import warnings
    from sipfw.policy.explain import explained

    if as_json and not explain:
        raise click.UsageError("--json goes with --explain")
    loaded = load_policy(choice)
    remark(loaded.blockers())
    values = explained(loaded)
    if explain and as_json:
        say_json([{"field": f, "value": v, "origin": o} for f, v, o in values])
    elif explain:
        for line in table([(field, text, origin) for field, text, origin in values]):
            say(line)
    wanted = compile_wanted(loaded)
    if no_ipset:
        wanted.loaded.require_setless()
        remark(warnings(wanted.ruleset))
    plan = lower(wanted.ruleset, ipset=not no_ipset)
    rules = sum(len(chain.rules) for tab in plan.tables for chain in tab.chains)
    sizes = (
        counted(len(loaded.policy.trusted_peers), "trusted peer"),
        counted(rules, "rule"),
        counted(len(plan.sets), "set"),
    )
    complain(f"the policy is sound: {', '.join(sizes)}")
    return Exit.INCOMPLETE if wanted.resolution.failures else Exit.CLEAN
