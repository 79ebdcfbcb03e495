"""`sipfw diff`: what an apply of the policy would change in the live kernel."""

from __future__ import annotations

import click

from sipfw.cli.backend_option import backend_option
from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options
from sipfw.cli.output import remark, say_json, say_lines
from sipfw.errors import Exit, PolicyError


@click.command("diff")
@policy_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON with every rule and set element.")
@click.option("--full", is_flag=True, help="List every rule, also where nothing is active yet.")
@backend_option("Where the rules would go.")
@click.option("--no-ipset", is_flag=True, help="Compare with the rules for a host without ipset.")
def command(*, choice: Choice, as_json: bool, full: bool, backend: str, no_ipset: bool) -> int:
    """Show what an apply would change: rules, sets and their members, kernel settings.

    Counters, and addresses that the firewall has learned or banned, are no difference. What rules
    of others take from the policy, or lead past it, is one: an apply does not mend it. Exit code 0
    means that nothing differs, 1 that something does. Nothing is written to the kernel.
    """
    from sipfw.cli.plan_view import as_data, as_lines
    from sipfw.deploy.choose import choose
    from sipfw.deploy.plan import plan_apply
    from sipfw.host.files import Layout
    from sipfw.kernel.snapshot import HostSnapshot
    from sipfw.lower.without_ipset import warnings
    from sipfw.monitor.beside import look_beside
    from sipfw.monitor.doctor.closed import closed_protocols
    from sipfw.monitor.doctor.host import HostView
    from sipfw.ruleset.doors import doors_of

    layout = Layout(choice.root)
    loaded = load_policy(choice)
    blockers = loaded.blockers()
    if blockers:
        raise PolicyError(blockers)
    wanted = compile_wanted(loaded, layout)
    if no_ipset:
        loaded.require_setless()
        remark(warnings(wanted.ruleset))
    host = HostSnapshot()
    choice_of_backend = choose(backend, layout, host=host, ipset=not no_ipset)
    remark(choice_of_backend.remarks)
    remark(closed_protocols(HostView(choice.root, runner=host), wanted.ruleset))
    plan = plan_apply(wanted.ruleset, choice_of_backend.backend, layout)
    beside = look_beside(wanted.ruleset, doors_of(wanted.ruleset), host)
    if as_json:
        say_json(as_data(plan, ", ".join(loaded.sources), choice_of_backend.backend.name, beside))
    else:
        say_lines(as_lines(plan, full=full, beside=beside))
    as_meant = plan.same and not plan.passed and not beside.degrading
    return Exit.CLEAN if as_meant else Exit.DIFFERENT
