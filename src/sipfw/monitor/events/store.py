"""Events put down and asked for: several looks at one ban are one event, and room is bounded.

A flood of forged addresses must not push out what matters. Of each kind there are at most so many
new sources an hour; of the rest the number is kept. Each kind has rows of its own, the oldest go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from sipfw.monitor.events.event import Event, EventKind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sipfw.ruleset.addresses import IpNetwork

KEPT = 31 * 86_400.0
MOST = {EventKind.BAN: 50_000, EventKind.HAND: 20_000, EventKind.LOGINS: 10_000}
_MOST_DROPS = 20_000
MOST_NEW_AN_HOUR = 2000
_HOUR = 3600.0
# Kernels tell whole seconds, and the look itself takes a moment.
SLACK = 5.0
_LONGEST_TEXT = 200
_GOING_ON = """
    SELECT id, kind, rule, source, layer, reason, who, first, last, until, packets, sources, known,
        freed
    FROM events WHERE ends >= ? ORDER BY first
"""
_BETWEEN = """
    SELECT kind, rule, source, layer, reason, who, first, last, until, packets, sources, known,
        freed
    FROM events WHERE ends >= ? AND first <= ? AND low <= ? AND high >= ?
    ORDER BY first DESC, id DESC LIMIT ?
"""
_COUNT = "SELECT count(*) FROM events WHERE ends >= ? AND first <= ? AND low <= ? AND high >= ?"
_WRITE = """
    INSERT OR REPLACE INTO events (id, kind, rule, source, layer, reason, who, first, last, until,
        packets, sources, known, freed, low, high, ends)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Every address lies between them, as `_ends` writes it.
_EVERYWHERE = ("", "~")


@dataclass(frozen=True, slots=True)
class Known:
    """An event that may still go on, by the number of its row."""

    row: int
    event: Event


def going_on(base: sqlite3.Connection, now: float) -> dict[tuple[str, str], Known]:
    """Return the newest event of each rule and source that this moment may belong to.

    A ban is over at its end; who is dropped without one, when nothing was seen for an hour.
    """
    return {key: old for key, old in _of_this_hour(base, now).items() if _goes_on(old.event, now)}


def _of_this_hour(base: sqlite3.Connection, now: float) -> dict[tuple[str, str], Known]:
    found: dict[tuple[str, str], Known] = {}
    for row, *fields in base.execute(_GOING_ON, (now - _HOUR,)):
        if (event := _event(fields)) is not None:
            found[event.rule, _key(event.source)] = Known(row, event)
    return found


def _goes_on(event: Event, now: float) -> bool:
    return event.until is None or event.until >= now - SLACK


def put_down(
    base: sqlite3.Connection,
    seen: Iterable[Event],
    now: float,
    whole: Collection[str] = (),
    freed: str = "",
) -> None:
    """Put down what a look has seen; `whole` are the rules of which it has seen all sources.

    A ban that is not there any more before its time was ended, by `freed` where somebody did.
    """
    recent = _of_this_hour(base, now)
    known = {key: old for key, old in recent.items() if _goes_on(old.event, now)}
    fresh: list[Event] = []
    there: set[tuple[str, str]] = set()
    for item in seen:
        key = item.rule, _key(item.source)
        there.add(key)
        old = known.get(key) or _missed(recent.get(key), item)
        if old is None or _another(old.event, item):
            fresh.append(item)
            there.discard(key)
        elif (after := _joined(old.event, item)) != old.event:
            _write(base, after, old.row)
    for key, old in known.items():
        end = old.event.until
        if key[0] in whole and key not in there and end is not None and end > now + SLACK:
            _write(base, replace(old.event, until=max(old.event.first, now), freed=freed), old.row)
    _put_new(base, fresh, known, now)
    _forget(base, now)


def _missed(old: Known | None, new: Event) -> Known | None:
    """Return a ban that the last look has missed, and so called ended: it began before that.

    A listing of nf_tables comes in pages; what goes meanwhile makes the next page skip another.
    """
    if old is None or old.event.kind is not EventKind.BAN or old.event.until is None:
        return None
    return old if new.first < old.event.until - SLACK else None


def _another(old: Event, new: Event) -> bool:
    """Tell whether an order by hand is another one than that on file."""
    return new.kind is EventKind.HAND and new.first > old.first + SLACK


def _joined(old: Event, new: Event) -> Event:
    until, freed = old.until, old.freed
    if new.until is not None and (until is None or abs(new.until - until) > SLACK):
        until, freed = new.until, ""
    return replace(
        old,
        first=min(old.first, new.first) if new.until is None else old.first,
        last=max(old.last, new.last),
        until=until,
        packets=old.packets + new.packets,
        known=old.known or new.known,
        freed=freed,
    )


def _put_new(
    base: sqlite3.Connection,
    fresh: Sequence[Event],
    known: Mapping[tuple[str, str], Known],
    now: float,
) -> None:
    for kind in EventKind:
        # The crowd is made of strangers: whom the switch knows is named first.
        mine = sorted((i for i in fresh if i.kind is kind), key=lambda i: not i.known)
        if not mine:
            continue
        (taken,) = base.execute(
            "SELECT count(*) FROM events WHERE kind = ? AND ends >= ? AND first >= ?",
            (kind, now - _HOUR, now - _HOUR),
        ).fetchone()
        room = max(MOST_NEW_AN_HOUR - taken, 0)
        for item in mine[:room]:
            _write(base, item)
        by_rule: dict[str, list[Event]] = {}
        for item in mine[room:]:
            by_rule.setdefault(item.rule, []).append(item)
        for rule, rest in by_rule.items():
            _count(base, rest, known.get((rule, "")))


def _count(base: sqlite3.Connection, rest: Sequence[Event], old: Known | None) -> None:
    """Keep the number of those that are not named, for an hour in one row."""
    one = max(rest, key=lambda item: item.ends)
    crowd = replace(
        one,
        source=None,
        reason="more sources than are named one by one",
        who="",
        first=min(item.first for item in rest),
        packets=sum(item.packets for item in rest),
        sources=len(rest),
        known=False,
        freed="",
    )
    if old is None or crowd.last - old.event.first > _HOUR:
        _write(base, crowd)
        return
    joined = _joined(old.event, crowd)
    # A ban that still runs is seen at every look: its packets are new, it is not.
    _write(base, replace(joined, sources=max(old.event.sources, crowd.sources)), old.row)


def _forget(base: sqlite3.Connection, now: float) -> None:
    base.execute("DELETE FROM events WHERE ends < ?", (now - KEPT,))
    counts = base.execute("SELECT kind, count(*) FROM events GROUP BY kind").fetchall()
    for kind, count in counts:
        # What is of no kind is no event of ours.
        most = MOST.get(kind, _MOST_DROPS) if kind in list(EventKind) else 0
        if count > most:
            base.execute(
                "DELETE FROM events WHERE id IN"
                " (SELECT id FROM events WHERE kind = ? ORDER BY ends LIMIT ?)",
                (kind, count - most),
            )


def between(
    base: sqlite3.Connection,
    since: float,
    until: float,
    network: IpNetwork | None = None,
    most: int = 20_000,
) -> tuple[list[Event], int]:
    """Return the latest events of a stretch of time that touch the network, and how many more."""
    low, high = _EVERYWHERE if network is None else _ends(network)
    values = (since, until, high, low)
    found = base.execute(_BETWEEN, (*values, most)).fetchall()
    more = base.execute(_COUNT, values).fetchone()[0] - len(found)
    return [item for item in map(_event, found) if item is not None], more


def _ends(network: IpNetwork | None) -> tuple[str, str]:
    """Write the first and the last address so that texts of one family sort as numbers."""
    if network is None:
        return "", ""
    digits = network.max_prefixlen // 4
    ends = int(network.network_address), int(network.broadcast_address)
    low, high = (f"{network.version}:{number:0{digits}x}" for number in ends)
    return low, high


def _key(source: IpNetwork | None) -> str:
    return "" if source is None else str(source.network_address)


def _write(base: sqlite3.Connection, item: Event, row: int | None = None) -> None:
    base.execute(
        _WRITE,
        (
            row,
            item.kind,
            _text(item.rule),
            "" if item.source is None else str(item.source),
            _text(item.layer),
            _text(item.reason),
            _text(item.who),
            item.first,
            item.last,
            item.until,
            item.packets,
            item.sources,
            item.known,
            _text(item.freed),
            *_ends(item.source),
            item.ends,
        ),
    )


def _text(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_TEXT])


def _event(fields: Sequence[Any]) -> Event | None:
    """Read a row; None for one that this module did not write."""
    kind, rule, source, layer, reason, who, first, last, until, packets, sources, known = fields[
        :12
    ]
    freed = fields[12]
    texts, whole = (rule, source, layer, reason, who, freed), (packets, sources, known)
    moments = [first, last] if until is None else [first, last, until]
    if not all(type(item) is str and item.isprintable() for item in texts):
        return None
    if not all(type(item) is float and 0 <= item < 1 << 36 for item in moments):
        return None
    if not all(type(item) is int and item >= 0 for item in whole):
        return None
    try:
        network = ip_network(source) if source else None
        return Event(
            EventKind(kind),
            network,
            layer,
            rule,
            reason,
            who,
            first,
            last,
            until,
            packets,
            sources,
            bool(known),
            freed,
        )
    except ValueError:
        return None
