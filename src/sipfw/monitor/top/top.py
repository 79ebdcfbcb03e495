"""Who is being dropped just now: from the sets, the limits, the arriving packets and NFLOG.

A set tells who is banned and a limit who is above it. A packet that is dropped for what it says
leaves no trace in either: for a moment the arriving packets are looked at, and each walks through
the applied ruleset. Where the policy logs to NFLOG, the kernel itself says what it dropped. What
peers have sent in vain, to whatever port, is noted by the rules themselves.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.compiler.names import SET_LEARNED
from sipfw.deploy.activate import current, stored
from sipfw.deploy.generations import Damaged
from sipfw.deploy.manual_list import Book, read_page
from sipfw.errors import BackendError
from sipfw.host.privilege import require_root
from sipfw.kernel.backend import backend_of
from sipfw.kernel.netlink.nflog import listen
from sipfw.kernel.state.sniffer import Sample
from sipfw.monitor.peer_traffic import RECENT, lost_of
from sipfw.monitor.top.arriving import arrivals, arriving
from sipfw.monitor.top.source import DroppedSource, Top, merged, source_prefix
from sipfw.monitor.top.state import BANS, from_limits, from_log, from_sets, log_group
from sipfw.ruleset.model import Layer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sipfw.compare.expected import Expectation
    from sipfw.deploy.activate import Firewall
    from sipfw.host.files import Layout
    from sipfw.kernel.state.members import Member
    from sipfw.kernel.state.sniffer import Arrived
    from sipfw.ruleset.addresses import IpNetwork

# A sample is for seeing who it is; more would be load.
_MOST_LOGGED = 20_000


def top(layout: Layout, *, seconds: float) -> Top | None:
    """Look for so long; None if nothing is live. Raises BackendError. Changes nothing."""
    require_root()
    live = current(layout)
    number = live.generation
    if number is None:
        return None
    firewall = stored(layout, number)
    if isinstance(firewall, Damaged):
        raise BackendError(f"generation {number} is damaged: {firewall.reason}", hint="apply again")
    notes: list[str] = []
    before, moment = _members(firewall, notes), time.time()
    found: list[DroppedSource] = []
    sample = Sample((), {}, 0.0, 0)
    group = log_group(firewall.ruleset)
    with ThreadPoolExecutor(1) as beside:
        log = None if group is None else beside.submit(listen, group, seconds, _MOST_LOGGED)
        try:
            found, sample = arriving(firewall.ruleset, before, seconds)
        except BackendError as error:
            notes.append(str(error))
        try:
            found += [] if log is None else from_log(firewall.ruleset, log.result())
        except BackendError as error:
            notes.append(str(error))
    members = before
    if seconds:
        # Who was banned while his packets were counted is banned now.
        members, moment = before | _members(firewall, notes, BANS), time.time()
    by_hand = read_page(layout, Book.BANS, now=moment).entries
    found += from_sets(firewall.ruleset, members, moment, by_hand)
    limited, said = from_limits(firewall)
    found = counted([*found, *limited], arrivals(sample, source_prefix(firewall.ruleset)), sample)
    found += _of_peers(layout, firewall, live.expectation, notes)
    if sample.missed:
        notes.append(f"{sample.missed:,} packets came faster than they could be counted")
    learned = {item.address for item in members.get(SET_LEARNED, ())}
    sources = (
        replace(item, known=item.network.network_address in learned) for item in merged(found)
    )
    return Top(tuple(sorted(sources, key=_order)), (*notes, *said), sample.seconds)


def counted(
    found: Iterable[DroppedSource], arrived: Mapping[IpNetwork, Arrived], sample: Sample
) -> list[DroppedSource]:
    """Give those whom a set or a limit names the packets that nothing else has accounted for.

    Without a look at packets nobody knows how many there were.
    """
    rows = merged(found)
    if not sample.seconds:
        return rows
    accounted: Counter[IpNetwork] = Counter()
    for item in rows:
        accounted[item.network] += item.packets or 0
    after = []
    # A ban comes before every limit, so what remains is first of all of the ban.
    for item in sorted(rows, key=lambda item: item.layer != Layer.BANNED):
        one, packets, last = arrived.get(item.network), item.packets, item.last
        if packets is None:
            packets = max((one.packets if one else 0) - accounted[item.network], 0)
            accounted[item.network] += packets
            if packets and one:
                last = max(one.last, last or 0.0, item.first or 0.0)
        rate = packets / sample.seconds
        after.append(replace(item, packets=packets, last=last, rate=rate))
    return after


def _order(item: DroppedSource) -> tuple[int, float, str]:
    return -(item.packets or 0), -(item.last or item.first or 0.0), str(item.network)


def _of_peers(
    layout: Layout, firewall: Firewall, expectation: Expectation, notes: list[str]
) -> list[DroppedSource]:
    """Return the peers that sent in vain lately: their packets come to any port."""
    chosen = backend_of(firewall.backend, ipset=firewall.ipset)
    try:
        peers = lost_of(layout, firewall.generation, expectation, chosen)
    except BackendError as error:
        notes.append(f"what peers have sent in vain cannot be read: {error}")
        return []
    moment = time.time() - RECENT
    return [
        DroppedSource(
            ip_network(item.source),
            item.layer,
            item.rule,
            peer.reason(item),
            item.packets,
            item.first,
            item.last,
        )
        for peer in (each.since(moment) for each in peers)
        for item in (*peer.losses, *peer.beside)
    ]


def _members(
    firewall: Firewall, notes: list[str], wanted: Collection[str] = ()
) -> dict[str, tuple[Member, ...]]:
    """Return the members of these sets, by default of all that packets fill."""
    names = [
        item.name
        for item in firewall.ruleset.sets
        if item.dynamic and (not wanted or item.name in wanted)
    ]
    try:
        return backend_of(firewall.backend, ipset=firewall.ipset).members().read(names)
    except BackendError as error:
        notes.append(f"the sets cannot be read: {error}")
        return {}
