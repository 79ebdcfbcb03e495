"""Gathers what the report shows: a look at the host, kept readings, sources, peers, generations."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compiler.names import TRUSTED
from sipfw.deploy.history import HistoryEntry, states
from sipfw.deploy.lists.sets import read_policy
from sipfw.deploy.names.cache import read_names
from sipfw.errors import BackendError
from sipfw.monitor import readings
from sipfw.monitor.observe import Observation, applied_subject, keep, observe
from sipfw.monitor.peer_counts import count_of, source_counts
from sipfw.monitor.reverse_names import reverse_names
from sipfw.monitor.series import Series, kinds_of, make_series
from sipfw.monitor.top.source import Top
from sipfw.monitor.top.top import top
from sipfw.policy.types import Hostname

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.deploy.names.grace import KnownName
    from sipfw.host.files import Layout
    from sipfw.monitor.peer_traffic import PeerTraffic
    from sipfw.monitor.report import Count
    from sipfw.policy.model import Peer
    from sipfw.ruleset.addresses import IpNetwork

# More would be a page that nobody reads.
_MOST_NAMED = 40


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """A trusted peer of the policy; `count` is None where the rules do not tell it apart.

    `traffic` is there where packets of it were dropped within a day.
    """

    name: str
    signalling: tuple[str, ...]
    media: tuple[str, ...]
    tier: str | None
    count: Count | None
    traffic: PeerTraffic | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything on the page. `since` was asked for, `series` begins with the first reading."""

    host: str
    made: float
    since: float
    seen: Observation
    readings: int
    series: Series | None
    sources: Top
    names: Mapping[str, str]
    peers: tuple[PeerFacts, ...]
    generations: tuple[HistoryEntry, ...]
    notes: tuple[str, ...]


def gather(layout: Layout, *, since: float, seconds: float, names: bool) -> Facts | None:
    """Look at the host for so long, and keep the reading; None if nothing is live.

    Raises BackendError where the firewall cannot be read. What else is missing is a note.
    """
    subject = applied_subject(layout)
    if subject is None:
        return None
    notes: list[str] = []
    # Rates of this moment are those of the time in which arriving packets are looked at.
    earlier = observe(subject, None).reading if seconds else readings.latest(layout, time.time())
    sources = _sources(layout, since, seconds, notes)
    seen = observe(subject, earlier)
    past = [item for item in readings.history(layout, since) if item.taken < seen.reading.taken]
    _keep(layout, seen, notes)
    return Facts(
        platform.node(),
        time.time(),
        since,
        seen,
        len(past) + 1,
        make_series([*past, seen.reading], kinds_of(seen.report.rules)),
        sources,
        reverse_names([item.network for item in sources.sources[:_MOST_NAMED]]) if names else {},
        _peers(layout, seen, notes),
        tuple(_generations(layout, notes)),
        tuple(notes),
    )


def _sources(layout: Layout, since: float, seconds: float, notes: list[str]) -> Top:
    """Return who was dropped in the whole time: what is remembered, with what is seen now."""
    found = Top((), (), 0.0)
    try:
        found = top(layout, seconds=seconds) or found
    except BackendError as error:
        notes.append(f"who is being dropped cannot be seen: {error}")
    try:
        # A Python may lack SQLite.
        from sipfw.monitor.events.look import remember_top  # noqa: PLC0415 - see above
        from sipfw.monitor.events.past import joined, over  # noqa: PLC0415 - see above

        remember_top(layout, found, notes.append)
        past = over(layout, since, time.time(), notes.append)
    except BackendError as error:
        notes.append(f"who was dropped before is not known: {error.message}")
        return found
    return replace(found, sources=joined(past, found.sources))


def _keep(layout: Layout, seen: Observation, notes: list[str]) -> None:
    try:
        keep(layout, seen)
    except BackendError as error:
        notes.append(f"this reading is not kept: {error}")


def _generations(layout: Layout, notes: list[str]) -> list[HistoryEntry]:
    try:
        return states(layout)
    except BackendError as error:
        notes.append(f"the generations cannot be read: {error}")
        return []


def _peers(layout: Layout, seen: Observation, notes: list[str]) -> tuple[PeerFacts, ...]:
    subject = seen.subject
    if subject.generation is None:
        return ()
    try:
        policy = read_policy(layout, subject.generation)
        counts = source_counts(subject.backend.live(subject.expectation), TRUSTED)
    except BackendError as error:
        notes.append(f"the peers cannot be shown: {error}")
        return ()
    known = read_names(layout)
    told = {item.name: item for item in seen.peers}
    return tuple(
        replace(_peer(peer, counts, known), traffic=told.get(peer.name))
        for peer in policy.trusted_peers
    )


def _peer(
    peer: Peer, counts: Mapping[IpNetwork, Count], known: Mapping[str, KnownName]
) -> PeerFacts:
    # The addresses of a host name change, and so stand in a set.
    named = any(isinstance(entry, Hostname) for entry in peer.signalling)
    count = None if named else count_of([ip_network(str(e)) for e in peer.signalling], counts)
    return PeerFacts(
        peer.name,
        tuple(_signalling(entry, known) for entry in peer.signalling),
        tuple(_place(network) for network in peer.media),
        None if peer.tier is None else peer.tier.value,
        count,
    )


def _signalling(entry: IpNetwork | Hostname, known: Mapping[str, KnownName]) -> str:
    if not isinstance(entry, Hostname):
        return _place(entry)
    if (item := known.get(entry.key)) is None or not item.addresses:
        return f"{entry} (never had an address)"
    return f"{entry} ({', '.join(_place(network) for network in item.addresses)})"


def _place(entry: IpNetwork) -> str:
    """Write an address without its length, as the policy may have it."""
    return str(entry) if entry.num_addresses > 1 else str(entry.network_address)
