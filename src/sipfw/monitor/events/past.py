"""Who was dropped over a stretch of time, in the form in which `top` tells who is dropped now."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sipfw.monitor.events.event import EventKind
from sipfw.monitor.events.file import EventFile
from sipfw.monitor.events.store import between
from sipfw.monitor.top.source import DroppedSource
from sipfw.ruleset.model import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sipfw.host.files import Layout
    from sipfw.monitor.events.event import Event
    from sipfw.ruleset.addresses import IpNetwork


def last_of(layout: Layout, network: IpNetwork, now: float) -> Event | None:
    """Return the newest event of an address. Raises BackendError."""
    # Only a look that writes moves a damaged file aside.
    file = EventFile(layout, lambda _: None)
    found, _ = file.ask(partial(between, since=0.0, until=now, network=network, most=1)) or ([], 0)
    return found[0] if found else None


def over(
    layout: Layout, since: float, until: float, say: Callable[[str], None]
) -> list[DroppedSource]:
    """Return each source and layer once. Raises BackendError."""
    file = EventFile(layout, say)
    events, more = file.ask(partial(between, since=since, until=until)) or ([], 0)
    if more:
        say(f"of the sources, {more:,} earlier events are left out; see sipfw events")
    found: dict[tuple[IpNetwork, str], DroppedSource] = {}
    for item in events:
        if item.source is None:
            continue
        seen = _as_source(item, item.source, until)
        old = found.get((seen.network, seen.layer))
        found[seen.network, seen.layer] = seen if old is None else _sum(old, seen)
    return list(found.values())


def _as_source(item: Event, network: IpNetwork, now: float) -> DroppedSource:
    # As `top` has it: all bans of a source are of the layer that carries them out.
    banned = item.kind in {EventKind.BAN, EventKind.HAND}
    left = None if item.until is None or item.until <= now else round(item.until - now)
    return DroppedSource(
        network,
        Layer.BANNED.value if banned else item.layer,
        item.rule,
        f"{item.layer}: {item.reason}" if banned else item.reason,
        item.packets,
        item.first,
        item.last,
        left,
        known=item.known,
    )


def _sum(newer: DroppedSource, older: DroppedSource) -> DroppedSource:
    return replace(
        newer,
        packets=(newer.packets or 0) + (older.packets or 0),
        first=min(newer.first or 0.0, older.first or 0.0),
        last=max(newer.last or 0.0, older.last or 0.0),
    )


def joined(
    past: Iterable[DroppedSource], now: Iterable[DroppedSource]
) -> tuple[DroppedSource, ...]:
    """Put what is seen only now to what was, those with the most packets first."""
    # What is remembered has what was seen now in it.
    every = {(item.network, item.layer): item for item in (*now, *past)}
    return tuple(
        sorted(every.values(), key=lambda i: (-(i.packets or 0), -(i.last or 0.0), str(i.network)))
    )
