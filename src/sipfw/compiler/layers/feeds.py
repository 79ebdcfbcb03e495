"""Block lists of others: a set and a rule for each, behind trusted, banned and learned sources.

Whom the switch itself has accepted no list can harm. The rules stand before the cap on unknown
sources, so that a listed flood leaves that to others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.ruleset.match import InSet
from sipfw.ruleset.model import AddressSet, SetKind
from sipfw.ruleset.rule import Drop, Rule

if TYPE_CHECKING:
    from sipfw.compiler.context import Context
    from sipfw.policy.feed import Feed
    from sipfw.ruleset.rule import Origin


def feed_rules(context: Context, ending: str = "") -> list[Rule]:
    """Return one drop per list; `ending` tells the rules of two chains apart."""
    return [
        Rule(
            f"feeds.{feed.name}{ending}",
            (InSet(f"{names.FEED_SET_PREFIX}{feed.name}"),),
            Drop(),
            f"source is on the block list {feed.name}",
            _origin(context, index, feed),
        )
        for index, feed in enumerate(context.policy.feeds)
    ]


def feed_sets(context: Context) -> list[AddressSet]:
    """Return one set per list, as `resolved`: its members change without a new policy."""
    if context.denied:
        return []
    return [
        AddressSet(
            f"{names.FEED_SET_PREFIX}{feed.name}",
            SetKind.NETWORK,
            f"block list {feed.name}",
            _origin(context, index, feed),
            networks=context.feeds.get(feed.name, ()),
            resolved=True,
        )
        for index, feed in enumerate(context.policy.feeds)
    ]


def _origin(context: Context, index: int, feed: Feed) -> Origin:
    return replace(context.origin("feeds", index), field=f"feeds.{feed.name}")
