"""`sipfw check`: whether a policy is sound, and where each value comes from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from sipfw.cli.machine import answered, did
from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options
from sipfw.cli.output import complain, remark, say_json, say_lines, table
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.cli.options import Wanted
    from sipfw.deploy.names.cache import Resolution


# More addresses of a name than this are counted.
_LISTED = 8


@click.command("check")
@policy_options
@click.option("--explain", is_flag=True, help="Print every value and where it comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-ipset", is_flag=True, help="Check for a host without ipset.")
@click.option(
    "--host",
    "with_host",
    is_flag=True,
    help="Also say what an apply closes on this host, and which gateways no peer covers.",
)
def command(
    *,
    choice: Choice,
    explain: bool,
    as_json: bool,
    no_ipset: bool,
    with_host: bool,
) -> int:
    """Check a policy. Needs no root and no iptables, and changes nothing."""
    work = partial(
        _check, choice, explain=explain, as_json=as_json, no_ipset=no_ipset, with_host=with_host
    )
    return answered("check", work) if as_json and not explain else work()


def _check(choice: Choice, *, explain: bool, as_json: bool, no_ipset: bool, with_host: bool) -> int:
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
    if with_host:
        _say_host(choice, wanted)
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


def _say_host(choice: Choice, wanted: Wanted) -> None:
    """Say what is in use and will be closed, and who is a gateway and no peer."""
    from sipfw.cli.found import find_gateways
    from sipfw.monitor.doctor.closed import closed_protocols
    from sipfw.monitor.doctor.host import HostView
    from sipfw.monitor.gateways.suggest import said, uncovered

    remark(closed_protocols(HostView(choice.root), wanted.ruleset))
    policy = wanted.loaded.policy
    sip = policy.signalling
    ports = [*sip.udp, *sip.tcp, *sip.tls, *sip.ws, *sip.wss]
    resolved = [
        member.network for known in wanted.resolution.known.values() for member in known.members
    ]
    lacking = uncovered(policy, find_gateways(choice.root, ports), resolved)
    remark(Diagnostic(said(item), severity=Severity.WARNING) for item in lacking)
    did(
        changed=None,
        uncovered=[
            {"where": item.where, "name": item.name, "places": [str(each) for each in item.places]}
            for item in lacking
        ],
    )


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
