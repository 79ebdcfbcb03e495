"""A source that is being dropped, for one reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.ruleset.match import ONE_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sipfw.ruleset.addresses import IpNetwork
    from sipfw.ruleset.match import PrefixLengths
    from sipfw.ruleset.model import Ruleset

# Sets that keep sources as bans and limits count them.
_OF_SOURCES = (names.SET_BANNED, names.SET_LEARNED, names.SET_STREAM_SOURCES)


@dataclass(frozen=True, slots=True)
class DroppedSource:
    """One source and one reason. Moments are seconds since 1970, None where nothing tells.

    `packets` were seen while looking, `rate` a second; without a rate they are what a rule has
    noted. `left` is how many seconds the reason still lasts if nothing more comes. `known`: the
    switch has accepted a login or a call of it.
    """

    network: IpNetwork
    layer: str
    rule: str
    reason: str
    packets: int | None = None
    first: float | None = None
    last: float | None = None
    left: int | None = None
    rate: float | None = None
    known: bool = False


@dataclass(frozen=True, slots=True)
class Top:
    """The sources, those with the most packets first, and what could not be seen.

    `looked` is for how many seconds arriving packets were looked at.
    """

    sources: tuple[DroppedSource, ...]
    notes: tuple[str, ...]
    looked: float


def source_prefix(ruleset: Ruleset) -> PrefixLengths:
    """Return how much of an address is one source to this ruleset."""
    found = {item.name: item.prefix for item in ruleset.sets}
    return next((found[name] for name in _OF_SOURCES if name in found), ONE_ADDRESS)


def plain_id(rule_id: str) -> str:
    """Return the id of the rule that a logged drop belongs to; see `compiler.logged`."""
    return rule_id.removeprefix("log.").removesuffix(".drop") if _logs(rule_id) else rule_id


def _logs(rule_id: str) -> bool:
    return rule_id.startswith("log.") and rule_id.endswith(".drop")


def seen_again(old: DroppedSource | None, new: DroppedSource) -> DroppedSource:
    """Count one more packet of a source."""
    if old is None:
        return new
    return replace(old, packets=(old.packets or 0) + (new.packets or 0), last=new.last)


def merged(sources: Iterable[DroppedSource]) -> list[DroppedSource]:
    """Make one of what several places tell about one source in one layer."""
    found: dict[tuple[IpNetwork, str], DroppedSource] = {}
    for item in sources:
        key = item.network, item.layer
        old = found.get(key)
        if old is None:
            found[key] = item
            continue
        more, less = sorted((old, item), key=lambda one: -(one.packets or 0))
        firsts = [one.first for one in (old, item) if one.first is not None]
        lasts = [one.last for one in (old, item) if one.last is not None]
        found[key] = replace(
            more,
            first=min(firsts, default=None),
            last=max((*lasts, *firsts), default=None) if lasts else None,
            left=more.left if more.left is not None else less.left,
            rate=more.rate if more.rate is not None else less.rate,
        )
    return list(found.values())
