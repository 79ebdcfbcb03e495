"""Who is being dropped just now: from the sets, the limits, the arriving packets and NFLOG.

A set tells who is banned and a limit who is above it. A packet that is dropped for what it says
leaves no trace in either: for a moment the arriving packets are looked at, and each walks through
the applied ruleset. Where the policy logs to NFLOG, the kernel itself says what it dropped. What
peers have sent in vain, to whatever port, is noted by the rules themselves.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sipfw.deploy.activate import current, stored
from sipfw.deploy.generations import Damaged
from sipfw.errors import BackendError
from sipfw.host.privilege import require_root
from sipfw.kernel.backend import backend_of
from sipfw.kernel.netlink.nflog import listen
from sipfw.monitor.peer_traffic import RECENT, lost_of
from sipfw.monitor.top.arriving import arriving
from sipfw.monitor.top.source import DroppedSource, Top, merged
from sipfw.monitor.top.state import from_limits, from_log, from_sets, log_group

if TYPE_CHECKING:
    from sipfw.compare.expected import Expectation
    from sipfw.deploy.activate import Firewall
    from sipfw.host.files import Layout
    from sipfw.kernel.state.members import Member

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
    members = _members(firewall, notes)
    found: list[DroppedSource] = []
    looked = 0.0
    group = log_group(firewall.ruleset)
    with ThreadPoolExecutor(1) as beside:
        log = None if group is None else beside.submit(listen, group, seconds, _MOST_LOGGED)
        try:
            seen, looked = arriving(firewall.ruleset, members, seconds)
            found += seen
        except BackendError as error:
            notes.append(str(error))
        try:
            found += [] if log is None else from_log(firewall.ruleset, log.result())
        except BackendError as error:
            notes.append(str(error))
    found += from_sets(firewall.ruleset, members)
    found += _of_peers(layout, firewall, live.expectation, notes)
    limited, said = from_limits(firewall)
    return Top(tuple(sorted(merged([*found, *limited]), key=_order)), (*notes, *said), looked)


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


def _members(firewall: Firewall, notes: list[str]) -> dict[str, tuple[Member, ...]]:
    names = [item.name for item in firewall.ruleset.sets if item.dynamic]
    try:
        return backend_of(firewall.backend, ipset=firewall.ipset).members().read(names)
    except BackendError as error:
        notes.append(f"the sets cannot be read: {error}")
        return {}
