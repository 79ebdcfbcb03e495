"""`sipfw apply`: make the policy live."""

from __future__ import annotations

import click

from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options
from sipfw.cli.output import complain, remark, say
from sipfw.errors import Exit, PolicyError


@click.command("apply")
@policy_options
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@click.option(
    "--backend",
    type=click.Choice(["iptables", "nftables"]),
    default="iptables",
    show_default=True,
    help="Legacy iptables through python-iptables, or nftables.",
)
@click.option("--no-ipset", is_flag=True, help="Use plain rules and xt_recent instead of ipset.")
@click.option("--adopt", is_flag=True, help="Take over chains of our names that are not ours.")
@click.option("--yes", is_flag=True, help="Never ask; for scripts.")
@click.option(
    "--lock-seconds",
    type=click.FloatRange(0.0, 600.0),
    default=10.0,
    show_default=True,
    help="How long to wait for another program that holds the xtables lock.",
)
def command(
    *,
    choice: Choice,
    dry_run: bool,
    backend: str,
    no_ipset: bool,
    adopt: bool,
    yes: bool,
    lock_seconds: float,
) -> int:
    """Make the policy live through python-iptables: all of it, or nothing.

    On any failure the old firewall is put back exactly.
    """
    from sipfw.deploy.apply import apply, rehearse
    from sipfw.deploy.files import Layout
    from sipfw.deploy.targets import Options, target
    from sipfw.lower.setless import warnings

    loaded = load_policy(choice)
    blockers = loaded.blockers()
    if blockers:
        raise PolicyError(blockers)
    wanted = compile_wanted(loaded)
    if no_ipset:
        wanted.loaded.require_setless()
        remark(warnings(wanted.ruleset))
    chosen = target(backend, ipset=not no_ipset)
    options = Options(adopt=adopt, lock_seconds=lock_seconds)
    if dry_run:
        say(rehearse(wanted.ruleset, chosen, options))
        complain("dry run: nothing was changed")
    else:
        outcome = apply(
            wanted.ruleset, chosen, ", ".join(loaded.sources), Layout(choice.root), options
        )
        for note in outcome.notes:
            complain(f"note: {note}")
        remark(outcome.warnings)
        families = " and ".join({"ip": "IPv4", "ip6": "IPv6"}[f] for f in outcome.families)
        complain(f"applied: {outcome.rules} rules for {families}, {outcome.sets} sets")
        complain("see the counters with: sipfw verify")
    return Exit.INCOMPLETE if wanted.resolution.failures else Exit.CLEAN
