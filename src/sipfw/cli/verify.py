"""`sipfw verify`: counters, fill levels, and whether the live firewall is the applied one."""

from __future__ import annotations

import click

from sipfw.cli.backend_option import backend_option
from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options
from sipfw.cli.output import complain, remark, say, say_json
from sipfw.errors import Exit


@click.command("verify")
@policy_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--hits", is_flag=True, help="Only rules that counted a packet.")
@backend_option("With a policy: where to look for it.")
@click.option("--no-ipset", is_flag=True, help="With a policy: expect a host without ipset.")
def command(
    *,
    choice: Choice,
    as_json: bool,
    hits: bool,
    backend: str,
    no_ipset: bool,
) -> int:
    """Show every rule's counters and compare the kernel with the last apply.

    With --policy, --profile, --switch or --set the comparison is with that policy instead. Exit
    code 1 means that a rule, chain, set or jump is missing, extra, moved or changed. Nothing is
    written to the kernel.
    """
    from sipfw.cli.verify_view import as_data, as_lines
    from sipfw.deploy.choose import choose
    from sipfw.deploy.files import Layout
    from sipfw.deploy.inspect import inspect
    from sipfw.deploy.state import read_applied
    from sipfw.deploy.targets import target

    applied = None if choice.explicit else read_applied(Layout(choice.root))
    if applied is not None:
        expectation, source = applied.expectation, applied.source
        chosen = target(applied.backend)
    else:
        if not choice.explicit:
            complain("no apply is on record; comparing with the policy itself")
        loaded = load_policy(choice)
        wanted = compile_wanted(loaded, Layout(choice.root))
        choice_of_backend = choose(backend, Layout(choice.root), ipset=not no_ipset)
        remark(choice_of_backend.remarks)
        chosen = choice_of_backend.target
        expectation = chosen.expectation(wanted.ruleset)
        source = ", ".join(loaded.sources)
    report = inspect(expectation, chosen)
    if as_json:
        say_json(as_data(report, source))
    else:
        for line in as_lines(report, source, hits=hits):
            say(line)
    return Exit.DIFFERENT if report.drift else Exit.CLEAN
