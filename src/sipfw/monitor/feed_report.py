"""What is known of each block list of the live policy: for `sipfw feeds`. Changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.deploy.applied import read_applied
from sipfw.deploy.lists.follow import is_expired, lists_of, read_all
from sipfw.deploy.lists.sets import read_policy
from sipfw.deploy.names.cache import read_names, recalled
from sipfw.deploy.names.resolve import host_names
from sipfw.errors import BackendError
from sipfw.kernel.backend import backend_of
from sipfw.monitor.inspect import inspect

if TYPE_CHECKING:
    from sipfw.deploy.applied import Applied
    from sipfw.feeds.parse import LeftOut
    from sipfw.host.files import Layout


@dataclass(frozen=True, slots=True)
class FeedReport:
    """One list. Ages in seconds: of the last good answer, and of the last try.

    `ip` and `ip6` count the networks that are dropped; `hits` are packets, None where the kernel
    could not be asked.
    """

    name: str
    source: str
    ip: int
    ip6: int
    age: float | None
    tried: float | None
    error: str | None
    expired: bool
    left_out: tuple[LeftOut, ...]
    hits: int | None


def feed_reports(layout: Layout) -> list[FeedReport] | None:
    """Return the lists of what is live; None when nothing is. Raises BackendError."""
    applied = read_applied(layout) if layout.state.exists() else None
    if applied is None or applied.generation is None:
        return None
    policy = read_policy(layout, applied.generation)
    known = read_all(layout, policy)
    addresses = recalled(host_names(policy), read_names(layout)).addresses
    lists = lists_of(policy, known, addresses)
    hits = _hits(applied) if policy.feeds else None
    now = time.time()
    found = []
    for feed in policy.feeds:
        networks = lists.networks.get(feed.name, ())
        copy, tries, good = known[feed.name].copy, known[feed.name].tries, known[feed.name].good
        found.append(
            FeedReport(
                feed.name,
                feed.url or feed.file or "",
                sum(1 for network in networks if network.version == 4),
                sum(1 for network in networks if network.version == 6),
                None if good is None else now - good,
                None if tries is None else now - tries.tried,
                None if tries is None else tries.error,
                is_expired(feed, known[feed.name], now),
                () if copy is None else copy.left_out,
                None if hits is None else hits.get(feed.name, 0),
            )
        )
    return found


def _hits(applied: Applied) -> dict[str, int] | None:
    """Return the packets by list, of plain SIP and of TLS together."""
    try:
        report = inspect(applied.expectation, backend_of(applied.backend))
    except BackendError:
        return None
    found: dict[str, int] = {}
    for rule in report.rules:
        layer, _, rest = rule.id.partition(".")
        if layer == "feeds":
            name = rest.partition(".")[0]
            found[name] = found.get(name, 0) + rule.packets
    return found
