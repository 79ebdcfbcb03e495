"""What `apply` does about block lists of which this host has no copy yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.options import Choice, stored_lists
from sipfw.cli.output import remark, wait_for
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.deploy.lists.files import KnownList
    from sipfw.host.files import Layout
    from sipfw.policy.load import LoadedPolicy


def first_lists(
    choice: Choice, loaded: LoadedPolicy
) -> tuple[Mapping[str, KnownList], Mapping[str, KnownList]]:
    """Fetch the lists without a copy; return what is known of all lists, and what was fetched.

    The others are `sipfw refresh`'s to follow.
    """
    from sipfw.deploy.lists.follow import ask_sources

    known = stored_lists(choice, loaded)
    lacking = [feed for feed in loaded.policy.feeds if known[feed.name].copy is None]
    if lacking:
        wait_for(f"fetching {pluralize(len(lacking), 'block list')}")
    fetched = ask_sources(lacking, known)
    return {**known, **fetched}, fetched


def keep_lists(layout: Layout, loaded: LoadedPolicy, fetched: Mapping[str, KnownList]) -> None:
    """Keep the copies of what is live now."""
    from sipfw.deploy.lists.follow import keep
    from sipfw.diagnostics import Diagnostic, Severity
    from sipfw.errors import BackendError

    try:
        keep(layout, loaded.policy, fetched)
    except BackendError as error:
        message = f"the copies of block lists are not kept: {error}"
        remark([Diagnostic(message, "feeds", severity=Severity.WARNING)])
