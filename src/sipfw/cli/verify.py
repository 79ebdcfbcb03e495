"""`sipfw verify`: counters, fill levels, and whether the live firewall is the applied one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from sipfw.cli.backend_option import backend_option
from sipfw.cli.moments import moment_of
from sipfw.cli.options import Choice, Seconds, policy_options
from sipfw.cli.output import complain, say, say_json, say_lines
from sipfw.cli.remember import remember
from sipfw.cli.subject import find_subject
from sipfw.errors import BackendError
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import Family

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.monitor.observe import Observation, Subject
    from sipfw.monitor.reading import Reading
    from sipfw.monitor.selection import Selection

_FAMILIES = {"4": Family.IP, "6": Family.IP6}


@click.command("verify")
@policy_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--brief", is_flag=True, help="Print one line, for a monitoring check.")
@click.option("--watch", is_flag=True, help="Refresh the screen with rates until you press q.")
@click.option(
    "--interval",
    type=Seconds(0.5, 3600.0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Refresh --watch this often.",
)
@click.option("--rules", "all_rules", is_flag=True, help="Show every rule, set and setting.")
@click.option("--hits", is_flag=True, help="Show only rules that counted a packet.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show only the N busiest rules.")
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=click.Choice([item.value for item in Layer]),
    help="Show only this layer. Repeatable.",
)
@click.option("--family", type=click.Choice(tuple(_FAMILIES)), help="Show only IPv4 or only IPv6.")
@click.option(
    "--since",
    metavar="WHEN",
    help="Count from an earlier reading: `last`, a duration such as 10m, or a timestamp such as "
    "2026-11-24T08:00.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Load the applied rules into a namespace and compare the two kernels' listings.",
)
@backend_option("With a policy: where to look for it.")
@click.option("--no-ipset", is_flag=True, help="With a policy: expect a host without ipset.")
def command(
    *,
    choice: Choice,
    as_json: bool,
    brief: bool,
    watch: bool,
    interval: float,
    all_rules: bool,
    hits: bool,
    top: int | None,
    layers: tuple[str, ...],
    family: str | None,
    since: str | None,
    deep: bool,
    backend: str,
    no_ipset: bool,
) -> int:
    """Compare the kernel with the last apply, and show what every layer and rule counted.

    The verdict comes first and the whole has room on one screen; --rules, --hits, --top and --layer
    list the counters of single rules, --rules with the sets and kernel settings.

    With --policy, --profile, --switch or --set the comparison is with that policy instead. Nothing
    is written to the kernel; the counters are kept in a file, for rates and --since.

    Exit code 0: healthy. 1: drift, a rule, chain, set or jump is missing, extra, moved or changed.
    2: degraded, with drift or without: connection tracking or a set is more than 80 % full, a
    kernel setting is not what the policy says, rules are split over two packet filters, one of them
    leads another port to SIP, one takes from a trusted peer or an admin what the policy gives, or
    packets of a trusted peer that no rule admits were dropped within 15 minutes. 4: it could not
    look, or --since found no earlier reading.
    """
    from sipfw.host.files import Layout
    from sipfw.monitor.selection import Selection

    if sum((as_json, brief, watch)) > 1:
        raise click.UsageError("--json, --brief and --watch exclude each other")
    if deep and (watch or choice.explicit):
        raise click.UsageError("--deep compares with what was applied, once: no --watch, no policy")
    if since is not None and (watch or choice.explicit):
        raise click.UsageError(
            "--since counts from a kept look at what was applied: no --watch, no policy"
        )
    _refuse_unheard(choice, brief=brief, watch=watch)
    layout = Layout(choice.root)
    moment = None if since is None else moment_of(since, time.time())
    subject = find_subject(choice, backend, ipset=not no_ipset)
    selection = Selection(frozenset(layers), _FAMILIES.get(family or ""), hits, top)
    if watch:
        from sipfw.cli.watch import run

        return run(subject, selection, interval)
    earlier = _earlier(layout, subject, moment)
    seen = _look(subject, earlier, layout, deep=deep)
    _keep(layout, seen)
    short = not (all_rules or hits or layers or top or since)
    _show(seen, selection, as_json=as_json, brief=brief, short=short, only_since=since is not None)
    return seen.health.state


def _refuse_unheard(choice: Choice, *, brief: bool, watch: bool) -> None:
    """Raise click.UsageError for options that the others leave without a meaning."""
    # SIPFW_BACKEND is for other commands too, so only what is written here counts.
    context = click.get_current_context()
    written = {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if brief and written & {"hits", "top", "layers", "family", "since"}:
        raise click.UsageError(
            "--brief is about everything, so it goes without --hits, --top, --layer, --family "
            "and --since"
        )
    if written & {"backend", "no_ipset"} and not choice.explicit:
        raise click.UsageError(
            "--backend and --no-ipset need --policy, --profile, --switch or --set"
        )
    if "interval" in written and not watch:
        raise click.UsageError("--interval needs --watch")


def _earlier(layout: Layout, subject: Subject, moment: float | None) -> Reading | None:
    from sipfw.monitor import readings

    if subject.generation is None:
        found = None
    elif moment is None:
        found = readings.latest(layout, time.time())
    else:
        found = readings.since(layout, moment)
    if moment is not None:
        if found is None:
            raise BackendError(
                "no earlier reading is kept, so there is nothing to count from",
                hint="run sipfw verify once after sipfw apply, and count from there",
            )
        if found.taken > moment + 1:
            complain("no reading is as old as that; counting from the oldest one")
    return found


def _look(subject: Subject, earlier: Reading | None, layout: Layout, *, deep: bool) -> Observation:
    from sipfw.monitor.observe import observe

    if not deep:
        return observe(subject, earlier)
    from sipfw.monitor.deep import deep_drift

    return observe(subject, earlier, more=deep_drift(layout))


def _keep(layout: Layout, seen: Observation) -> None:
    from sipfw.monitor.observe import keep
    from sipfw.monitor.top.state import holds_bans

    try:
        keep(layout, seen)
    except BackendError as error:
        complain(f"this reading is not kept: {error}")
    if seen.subject.generation is not None and holds_bans(seen.report.sets):
        remember(layout)


def _show(
    seen: Observation,
    selection: Selection,
    *,
    as_json: bool,
    brief: bool,
    short: bool,
    only_since: bool,
) -> None:
    from sipfw.monitor.selection import grown
    from sipfw.monitor.summary import summarise

    rules = selection.scope(seen.report.rules)
    if only_since and seen.growth is not None:
        rules = grown(rules, seen.growth)
    layers = summarise(rules, seen.growth)
    shown = selection.shown(rules)
    if as_json:
        from sipfw.cli.verify_data import as_data

        say_json(as_data(seen, layers, shown))
        return
    from sipfw.cli.verify_view import as_lines, brief_line, one_screen

    if brief:
        say(brief_line(seen))
        return
    if short:
        say_lines(one_screen(seen, layers, shown))
        return
    say_lines(as_lines(seen, layers, shown, selection=selection, only_since=only_since))
