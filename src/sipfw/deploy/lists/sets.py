"""Block lists in rulesets and generations, and the folder of the copies: no list is read here.

A generation has the sets, the copies on file have the members. So a firewall that comes back, at
boot or by a rollback, has the last good lists and not old ones, and twenty generations do not hold
a list twenty times.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler.names import FEED_SET_PREFIX
from sipfw.errors import BackendError
from sipfw.host.files import read_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from sipfw.host.files import Layout
    from sipfw.policy.model import Policy
    from sipfw.ruleset.model import Ruleset


def read_policy(layout: Layout, number: int) -> Policy:
    """Return the policy of a generation. Raises BackendError."""
    # 0.2 s for pydantic that the other functions here do not need.
    from sipfw.policy.model import Policy  # noqa: PLC0415 - see above

    path = layout.generations / str(number) / "policy.json"
    try:
        return Policy.model_validate(json.loads(read_private(path)))
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(
            f"the policy of generation {number} cannot be read", hint="apply again"
        ) from error


def feed_of(set_name: str) -> str | None:
    """Return the list behind a set of a ruleset; None for any other set."""
    name = set_name.removeprefix(FEED_SET_PREFIX)
    return None if name == set_name else name


def has_lists(ruleset: Ruleset) -> bool:
    """Tell whether there is a block list."""
    return any(feed_of(item.name) for item in ruleset.sets)


def with_lists(
    ruleset: Ruleset, networks: Mapping[str, tuple[IPv4Network | IPv6Network, ...]]
) -> Ruleset:
    """Put lists into their sets; a set whose list is not given is empty."""
    sets = tuple(
        item
        if (name := feed_of(item.name)) is None
        else replace(item, networks=networks.get(name, ()))
        for item in ruleset.sets
    )
    return replace(ruleset, sets=sets)


def without_lists(ruleset: Ruleset) -> Ruleset:
    """Return what a generation keeps."""
    return with_lists(ruleset, {})


def feeds_folder(layout: Layout) -> Path:
    """Return where the copies are."""
    return layout.state / "feeds"


def copies_size(layout: Layout) -> int:
    """Return the bytes of all copies."""
    try:
        return sum(path.stat().st_size for path in feeds_folder(layout).glob("*.json"))
    except OSError:
        return 0


def forget_all(layout: Layout) -> None:
    """Delete all copies."""
    folder = feeds_folder(layout)
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
