"""Options that several commands share, and the steps from options to a policy and a ruleset."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sipfw.cli.output import remark, wait_for
from sipfw.cli.which_policy import DEFAULT_POLICY, chosen_file
from sipfw.diagnostics import Severity
from sipfw.errors import BackendError
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.deploy.lists.files import KnownList
    from sipfw.deploy.lists.follow import Lists
    from sipfw.deploy.names.cache import Resolution
    from sipfw.host.files import Layout
    from sipfw.policy.load import LoadedPolicy
    from sipfw.ruleset.model import Ruleset

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wanted:
    """A loaded policy and what it means with this day's DNS and block lists."""

    loaded: LoadedPolicy
    ruleset: Ruleset
    resolution: Resolution
    lists: Lists

    @property
    def incomplete(self) -> bool:
        """Tell whether a host name has no address, or a block list drops nothing."""
        return bool(self.resolution.failures or self.lists.missing)


class Seconds(click.FloatRange):
    """A number of seconds; `nan` is refused, which no limit of a range keeps out."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the option's value."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


def root_option(command: F) -> F:
    """Add `--root`."""
    return click.option(
        "--root",
        envvar="SIPFW_ROOT",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/"),
        show_default=True,
        help="Read and write every file below this folder.",
    )(command)


@dataclass(frozen=True, slots=True)
class Choice:
    """The options that select a policy."""

    policy: Path | None
    profile: str | None
    switch: str | None
    settings: tuple[str, ...]
    root: Path

    @property
    def explicit(self) -> bool:
        """Tell whether anything was chosen, as opposed to the host's usual policy."""
        return bool(self.policy or self.profile or self.switch or self.settings)


def policy_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add --policy, --profile, --switch, --set and --root, packed as `choice`."""

    @functools.wraps(command)
    def packed(
        *,
        policy: Path | None,
        profile: str | None,
        switch: str | None,
        settings: tuple[str, ...],
        root: Path,
        **others: Any,
    ) -> int:
        return command(choice=Choice(policy, profile, switch, settings, root), **others)

    decorators = (
        click.option(
            "-f",
            "--policy",
            type=click.Path(path_type=Path, readable=False),
            help=f"Read this policy file. Default: /{DEFAULT_POLICY}, if it exists. `none`: only "
            "shipped values.",
        ),
        click.option(
            "--profile", help="Use this profile as the base of the policy; see `sipfw profiles`."
        ),
        click.option("--switch", help="Use the ports of this softswitch; see `sipfw profiles`."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Set one field, such as limits.hashlimit.rate=5/second. Repeatable.",
        ),
        root_option,
    )
    for decorator in reversed(decorators):
        packed = decorator(packed)
    return packed


def load_policy(
    choice: Choice,
    *,
    obeyed: bool = False,
    force: bool = False,
    changes: bool = False,
    prints: bool = False,
) -> LoadedPolicy:
    """Load what the options name and print the remarks about it.

    One that is `obeyed` changes the kernel: BackendError where others than root may write the
    file, and with `force` a loud warning. For `changes` and `prints` see `chosen_file`.
    """
    from sipfw.policy.load import Request, load

    policy = chosen_file(choice, changes=changes, prints=prints)
    loaded = load(Request(policy, choice.profile, choice.switch, choice.settings))
    if obeyed and loaded.doubts and not force and os.geteuid() == 0:
        first = replace(loaded.doubts[0], severity=Severity.ERROR)
        raise BackendError(str(first), hint="chown root and chmod go-w, or apply with --force")
    forced = "FORCED: " if obeyed and force else ""
    remark([replace(item, message=f"{forced}{item.message}") for item in loaded.doubts])
    remark(loaded.remarks)
    return loaded


def compile_wanted(
    loaded: LoadedPolicy,
    layout: Layout | None = None,
    lists: Mapping[str, KnownList] | None = None,
) -> Wanted:
    """Resolve host names and compile; a name without an answer now is a warning.

    With `layout` its last good addresses, if it ever had any, stand in for the answer. Block lists
    hold what is in `lists`, or on file; where there is neither they are empty. With `layout` there
    are rules for what is banned and trusted by hand on this host.
    """
    from sipfw.compiler.manual import NOBODY
    from sipfw.compiler.pipeline import compile_policy
    from sipfw.deploy.lists.follow import NO_LISTS, lists_of, read_all
    from sipfw.deploy.manual_list import by_hand
    from sipfw.deploy.names.answers import standards
    from sipfw.deploy.names.cache import read_names, resolution_warnings, resolve_or_recall
    from sipfw.deploy.names.resolve import host_names

    known = {} if layout is None else read_names(layout)
    names = host_names(loaded.policy)
    # Who is logged in and who is banned is looked up for a policy with names only.
    bounds = standards(loaded.policy, layout) if names else None
    if names:
        wait_for(f"looking up {pluralize(len(names), 'host name')}")
    resolution = resolve_or_recall(names, known, bounds)
    remark(resolution_warnings(resolution))
    if lists is None and layout is not None:
        lists = read_all(layout, loaded.policy)
    found = NO_LISTS if lists is None else lists_of(loaded.policy, lists, resolution.addresses)
    remark(found.remarks)
    hands = NOBODY if layout is None else by_hand(layout)
    ruleset = compile_policy(loaded, resolution.addresses, found.networks, hands)
    return Wanted(loaded, ruleset, resolution, found)


def stored_lists(choice: Choice, loaded: LoadedPolicy) -> Mapping[str, KnownList]:
    """Return the copies of the policy's block lists that are on this host."""
    from sipfw.deploy.lists.follow import read_all
    from sipfw.host.files import Layout

    return read_all(Layout(choice.root), loaded.policy)


def keep_names(layout: Layout, resolution: Resolution) -> None:
    """Remember what was resolved, for a day without DNS."""
    from sipfw.deploy.names.cache import remember
    from sipfw.diagnostics import Diagnostic, Severity
    from sipfw.errors import BackendError

    try:
        remember(layout, resolution)
    except BackendError as error:
        message = f"the addresses of host names are not kept: {error}"
        remark([Diagnostic(message, "trusted_peers", severity=Severity.WARNING)])
