"""`sipfw apply`: make the policy live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from sipfw.cli.archived import archived
from sipfw.cli.backend_option import backend_option
from sipfw.cli.first_lists import first_lists, keep_lists
from sipfw.cli.machine import did
from sipfw.cli.options import (
    Choice,
    Seconds,
    Wanted,
    compile_wanted,
    keep_names,
    load_policy,
    policy_options,
)
from sipfw.cli.outcome import report, report_saved, wait_or_leave
from sipfw.cli.output import complain, remark, say
from sipfw.cli.preview import agreed
from sipfw.errors import Exit, PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.deploy.generations import Content
    from sipfw.deploy.lists.files import KnownList
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend, Options
    from sipfw.policy.load import LoadedPolicy


@click.command("apply")
@policy_options
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@backend_option("Where the rules go.")
@click.option("--no-ipset", is_flag=True, help="Use plain rules and xt_recent instead of ipset.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Take over chains and sets that bear a name of sipfw and were made by others.",
)
@click.option(
    "--confirm",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    help="Roll back after this many seconds unless you answer yes or run `sipfw confirm`.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Apply even if it locks out or cuts off somebody, or if others may write the policy.",
)
@click.option(
    "--take-up",
    is_flag=True,
    help="Bring back the generations and bans by hand that sipfw remove has archived.",
)
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@click.option(
    "--lock-seconds",
    type=Seconds(0.0, 600.0),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="Wait this long for another program that holds the xtables lock.",
)
def command(
    *,
    choice: Choice,
    dry_run: bool,
    backend: str,
    no_ipset: bool,
    adopt: bool,
    confirm: int | None,
    force: bool,
    take_up: bool,
    yes: bool,
    lock_seconds: float,
) -> int:
    """Make the policy live: all of it, or nothing. At a terminal it asks before.

    What is in force already makes no new generation; what others have changed of it is put right.
    On any failure the old firewall is put back exactly. With --confirm it also comes back when
    nobody confirms in time, even if your session is cut off or sipfw is killed; then it asks only
    afterwards. Exit code 1 means that you said no, and nothing was changed.
    """
    from sipfw.deploy.apply import apply
    from sipfw.deploy.choose import choose
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Options
    from sipfw.kernel.snapshot import HostSnapshot
    from sipfw.lower.without_ipset import warnings
    from sipfw.monitor.doctor.beforehand import remarks
    from sipfw.monitor.doctor.host import HostView

    layout = Layout(choice.root)
    loaded = _obeyable(choice, dry_run=dry_run, force=force, ipset=not no_ipset)
    archived(layout, wanted=take_up and not dry_run)
    known, fetched = first_lists(choice, loaded)
    wanted = _wanted(loaded, layout, known, force=force)
    if no_ipset:
        remark(warnings(wanted.ruleset))
    host = HostSnapshot()
    choice_of_backend = choose(backend, layout, ipset=not no_ipset, host=host)
    remark(choice_of_backend.remarks)
    remark(remarks(HostView(choice.root, runner=host), wanted.ruleset, force=force))
    chosen = choice_of_backend.backend
    options = Options(adopt=adopt, lock_seconds=lock_seconds, force=force, host=host)
    if dry_run:
        _rehearsed(wanted, chosen, options, layout)
    else:
        content = _content(wanted, chosen, ipset=not no_ipset)
        if not agreed(wanted.ruleset, chosen, layout, ask=not (yes or confirm), host=host):
            return Exit.DIFFERENT
        outcome = apply(content, layout, options, confirm=confirm)
        keep_names(layout, wanted.resolution)
        keep_lists(layout, loaded, fetched)
        report("applied", outcome)
        report_saved(layout)
        complain("see the counters with: sipfw verify")
        waiting = outcome.waiting
        if waiting and (ended := wait_or_leave(layout, waiting, ask=not yes)) != Exit.CLEAN:
            return ended
    return Exit.INCOMPLETE if wanted.incomplete else Exit.CLEAN


def _obeyable(choice: Choice, *, dry_run: bool, force: bool, ipset: bool) -> LoadedPolicy:
    """Load the policy; PolicyError where nothing may be applied of it, or not now."""
    from sipfw.host.files import Layout
    from sipfw.manual.panic import require_no_panic

    if not (dry_run or force):
        require_no_panic(Layout(choice.root))
    loaded = load_policy(choice, obeyed=not dry_run, force=force, changes=True)
    if blockers := loaded.blockers():
        raise PolicyError(blockers)
    if not ipset:
        loaded.require_setless()
    return loaded


def _rehearsed(wanted: Wanted, chosen: Backend, options: Options, layout: Layout) -> None:
    from sipfw.deploy.apply import rehearse

    text, doubts = rehearse(wanted.ruleset, chosen, options, layout)
    remark(doubts)
    agreed(wanted.ruleset, chosen, layout, ask=False)
    say(text)
    did(changed=False)
    complain("dry run: nothing was changed")


def _wanted(
    loaded: LoadedPolicy, layout: Layout, lists: Mapping[str, KnownList], *, force: bool
) -> Wanted:
    from sipfw.deploy.names.way_in import require_way_in

    found = compile_wanted(loaded, layout, lists)
    require_way_in(loaded, found.resolution, force=force)
    return found


def _content(wanted: Wanted, chosen: Backend, *, ipset: bool) -> Content:
    from sipfw.deploy.generations import Content

    loaded = wanted.loaded
    return Content(
        wanted.ruleset,
        chosen.name,
        ipset=ipset,
        source=", ".join(loaded.sources),
        policy=json.dumps(loaded.policy.model_dump(mode="json", by_alias=True), indent=1),
    )
