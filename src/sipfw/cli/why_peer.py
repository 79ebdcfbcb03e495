"""`sipfw why NAME`: what becomes of a trusted peer's packets, over all its addresses."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from sipfw.cli.output import say, say_json, table
from sipfw.cli.peer_view import peer_data, peer_lines
from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.cli.options import Choice
    from sipfw.monitor.peer_traffic import PeerTraffic
    from sipfw.monitor.report import Count
    from sipfw.ruleset.addresses import IpNetwork

FORMAT = 1
_SHOWN = 8


def explain_peer(name: str, choice: Choice, *, offline: bool, as_json: bool) -> int:
    """Print what is known of a peer. Raises click.UsageError where the policy has none of it."""
    peers, place, together = _of_policy(choice) if offline else _applied(choice)
    found = next((item for item in peers if item.name == name), None)
    if found is None:
        raise click.UsageError(
            f"{name!r} is not an address; write one such as 203.0.113.7 or 2001:db8::7, or the "
            "name of a trusted peer"
        )
    if as_json:
        say_json(_data(found, together, offline=offline))
        return 0
    for line in _lines(found, place, together, offline=offline):
        say(line)
    return 0


def _applied(choice: Choice) -> tuple[Sequence[PeerTraffic], str, int | None]:
    """Return the peers, where they are from, and what all lost where no set notes it."""
    from sipfw.deploy.none_active import HINT, NOTHING
    from sipfw.host.files import Layout
    from sipfw.monitor.inspect import look
    from sipfw.monitor.observe import applied_subject
    from sipfw.monitor.peer_traffic import traffic, unnamed

    if os.geteuid() != 0:
        raise BackendError("only root may see the firewall", hint="use sudo, or --offline")
    subject = applied_subject(Layout(choice.root))
    if subject is None:
        raise BackendError(NOTHING, hint=f"{HINT}, or ask about a policy with --offline")
    report, live = look(subject.expectation, subject.backend)
    peers = traffic(subject, live, report.rules, all_peers=True)
    number = "" if subject.generation is None else f", generation {subject.generation}"
    place = f"now, in {subject.backend.name}{number}, from {subject.source}"
    rules = unnamed(subject.expectation, report.rules)
    return peers, place, sum(rule.packets for rule in rules) if rules else None


def _of_policy(choice: Choice) -> tuple[Sequence[PeerTraffic], str, None]:
    from sipfw.cli.options import load_policy
    from sipfw.monitor.peer_traffic import peers_of

    loaded = load_policy(choice)
    return peers_of(loaded.policy, None), f"in the policy {', '.join(loaded.sources)}", None


def _lines(peer: PeerTraffic, place: str, together: int | None, *, offline: bool) -> Iterator[str]:
    yield f"{peer.name}, a trusted peer, {place}"
    yield ""
    rows = [["signalling", _listed(peer.signalling)], ["media", _listed(peer.media)]]
    if not offline:
        rows += [
            ["SIP let through", _count(peer.sip)],
            ["RTP let through", _count(peer.rtp)],
            ["dropped", _dropped(peer, together)],
        ]
    yield from table(rows)
    if peer.last is not None:
        yield ""
        yield from peer_lines(peer, time.time())
        latest = max((*peer.losses, *peer.beside), key=lambda item: item.last)
        yield ""
        way = f"{latest.source} --to-port {latest.door.port} --transport {latest.door.proto}"
        yield f"by which rule: sipfw why {way}"


def _dropped(peer: PeerTraffic, together: int | None) -> str:
    if together is not None:
        return f"{together:,} of all peers together, not counted by peer without ipset"
    return "nothing within a day" if peer.last is None else f"{peer.dropped:,} packets"


def _listed(networks: Sequence[IpNetwork]) -> str:
    """Write single addresses bare, and not too many of them."""
    texts = [
        str(item if item.num_addresses > 1 else item.network_address) for item in networks[:_SHOWN]
    ]
    more = f" and {len(networks) - _SHOWN:,} more" if len(networks) > _SHOWN else ""
    return (", ".join(texts) or "-") + more


def _count(count: Count | None) -> str:
    return "not counted by peer" if count is None else f"{count.packets:,} packets"


def _data(peer: PeerTraffic, together: int | None, *, offline: bool) -> dict[str, Any]:
    """Return it for machines; `dropped_of_all` is there instead where no set notes it by peer."""
    return {
        "format": FORMAT,
        "offline": offline,
        "dropped_of_all": together,
        "peer": {
            **peer_data(peer),
            "signalling": [str(item) for item in peer.signalling],
            "media": [str(item) for item in peer.media],
        },
    }
