"""A generation's ruleset with what its block lists hold now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.lists.follow import lists_of, read_all
from sipfw.deploy.lists.sets import copies_size, read_policy, with_lists
from sipfw.deploy.names.cache import read_names, recalled
from sipfw.deploy.names.resolve import host_names
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.ruleset.model import Ruleset


# Some 100,000 entries. More take minutes on a slow host, and neither a boot nor a watchdog that
# brings the old firewall back may wait for them: `refresh --cached` fills them in behind.
_AT_ONCE = 2 << 20


def filled(ruleset: Ruleset, layout: Layout, number: int) -> Ruleset:
    """Return a generation's ruleset with the last good lists, unless they are very long.

    Never fails: a firewall without lists is better than none.
    """
    if copies_size(layout) > _AT_ONCE:
        return ruleset
    try:
        policy = read_policy(layout, number)
    except BackendError:
        return ruleset
    addresses = recalled(host_names(policy), read_names(layout)).addresses
    return with_lists(ruleset, lists_of(policy, read_all(layout, policy), addresses).networks)
