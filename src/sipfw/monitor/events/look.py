"""Looks at who is kept out now, and puts it down. The kernel is read only.

Most looks find whom the last one found: the sets and the book alone tell that. Only for a new ban
are the rules and the policy read, for what led to it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compiler import names
from sipfw.deploy.applied import read_applied
from sipfw.deploy.manual_list import Book, read_page
from sipfw.errors import BackendError
from sipfw.kernel.backend import backend_of
from sipfw.monitor.events.event import Event, EventKind
from sipfw.monitor.events.file import EventFile
from sipfw.monitor.events.store import going_on, put_down
from sipfw.monitor.top.state import BANS, LOGINS, SHUT
from sipfw.ruleset.model import Layer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sipfw.deploy.manual_list import ManualEntry
    from sipfw.host.files import Layout
    from sipfw.kernel.state.members import Member
    from sipfw.manual.bans import Ban
    from sipfw.monitor.events.store import Known
    from sipfw.monitor.top.source import Top
    from sipfw.ruleset.addresses import IpAddress, IpNetwork

# What `top` names by its set, and a look by the ban in it.
_OF_SETS = frozenset({Layer.BANNED.value, Layer.REPLIES.value})


def look(layout: Layout, say: Callable[[str], None], *, freed: str = "") -> None:
    """Put down who is banned now, and whose ban has ended. Raises BackendError.

    `freed` names who has just ended bans.
    """
    applied = read_applied(layout) if layout.state.exists() else None
    if applied is None:
        return
    present = {item.of for item in applied.expectation.sets}
    wanted = [name for name in (*BANS, *SHUT) if name in present]
    if not wanted:
        return
    members = backend_of(applied.backend).members().read(wanted)
    now, file = time.time(), EventFile(layout, say)
    known = file.ask(partial(going_on, now=now)) or {}
    if known or any(members.values()):
        seen = tuple(_seen(layout, members, known, now))
        whole = frozenset(members)
        file.change(partial(put_down, seen=seen, now=now, whole=whole, freed=freed))


def remember_top(layout: Layout, found: Top, say: Callable[[str], None]) -> None:
    """Put down who was dropped while `top` looked. Raises BackendError."""
    look(layout, say)
    now = time.time()

    def work(base: sqlite3.Connection) -> None:
        known = going_on(base, now)
        put_down(base, [*_dropped(found, known, now)], now)

    if found.sources:
        EventFile(layout, say).change(work)


def _dropped(found: Top, known: Mapping[tuple[str, str], Known], now: float) -> Iterator[Event]:
    for item in found.sources:
        key = str(item.network.network_address)
        kept_out = next((known[n, key] for n in (*BANS, *SHUT) if (n, key) in known), None)
        last = item.last or now
        if kept_out is not None and item.layer in _OF_SETS:
            packets = item.packets or 0
            last = last if packets else kept_out.event.last
            yield replace(kept_out.event, last=max(last, kept_out.event.last), packets=packets)
        elif item.rule not in LOGINS:
            # What a rule has noted is a sum: a second look would count it again.
            again = item.rate is None and (item.rule, key) in known
            yield Event(
                EventKind.DROP,
                item.network,
                item.layer,
                item.rule,
                item.reason,
                "",
                min(item.first or last, last),
                last,
                packets=0 if again else item.packets or 0,
                known=item.known,
            )


@dataclass(frozen=True, slots=True)
class _Told:
    """What the rules and the policy tell about sources; nothing where they cannot be read."""

    source: Callable[[IpAddress], IpNetwork] = ip_network
    bans: Mapping[IpAddress, Ban] = field(default_factory=dict)
    learned: frozenset[IpAddress] = frozenset()


def _seen(
    layout: Layout,
    members: Mapping[str, Sequence[Member]],
    known: Mapping[tuple[str, str], Known],
    now: float,
) -> Iterator[Event]:
    # An endpoint is a source's; of its ports the one that is shut longest counts.
    longest = {
        (name, item.address): item
        for name, found in members.items()
        for item in sorted(found, key=lambda item: item.left or 0)
    }
    book = read_page(layout, Book.BANS).entries
    told: _Told | None = None
    for (name, address), item in longest.items():
        until = None if item.left is None else now + item.left
        order = book.get(address) if name == names.SET_BLOCKED else None
        old = known.get((name, str(address)))
        if old is not None:
            again = replace(old.event, until=until, packets=0)
            yield again if order is None else _ordered(again, order)
            continue
        if (name, "") in known:
            # A crowd is counted already: for most of these there is no room in this hour.
            first = _event(name, address, told or _Told(), now)
        else:
            told = told or _asked(layout)
            first = _event(name, address, told, now)
        yield replace(first if order is None else _ordered(first, order), until=until)


def _asked(layout: Layout) -> _Told:
    # pydantic comes with it: 0.2 s that only a look with something new has to pay.
    from sipfw.manual.bans import list_bans  # noqa: PLC0415 - see above
    from sipfw.manual.change import in_force  # noqa: PLC0415 - see above

    try:
        now = in_force(layout)
        bans = {item.address: item for item in list_bans(layout).found}
        learned = now.members.read([names.SET_LEARNED]).get(names.SET_LEARNED, ())
    except BackendError:
        return _Told()
    return _Told(now.source, bans, frozenset(item.address for item in learned))


def _event(name: str, address: IpAddress, told: _Told, now: float) -> Event:
    source = told.source(address)
    known = source.network_address in told.learned
    if name in SHUT:
        layer, reason = Layer.REPLIES.value, LOGINS[name]
        return Event(EventKind.LOGINS, source, layer, name, reason, "", now, now, known=known)
    ban = told.bans.get(address)
    layer, reason, first = Layer.BANNED.value, "", now
    if ban is not None:
        layer, reason, first = ban.layer, ban.reason, min(ban.since or now, now)
    kind = EventKind.HAND if name == names.SET_BLOCKED else EventKind.BAN
    return Event(kind, source, layer, name, reason, "", first, first, known=known)


def _ordered(item: Event, order: ManualEntry) -> Event:
    """Say what the book tells of a ban by hand."""
    began = float(order.since)
    return replace(
        item, reason=order.reason, who=order.who, first=began, last=max(began, item.last)
    )
