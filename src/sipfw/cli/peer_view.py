"""A trusted peer and what of its packets was dropped: for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.cli.numbers import count_text
from sipfw.cli.output import table
from sipfw.monitor.peer_traffic import door_text
from sipfw.words import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.monitor.peer_losses import Loss
    from sipfw.monitor.peer_traffic import PeerTraffic
    from sipfw.monitor.report import Count

# More would be a list that nobody reads.
_SHOWN = 20


def peer_lines(peer: PeerTraffic, now: float) -> Iterator[str]:
    """Return what was dropped of a peer, in sentences and then by source and port."""
    yield from peer.sentences()
    losses = [*peer.losses, *peer.beside]
    yield from table([_row(item, now) for item in losses[:_SHOWN]], right=(2,))
    if len(losses) > _SHOWN:
        yield f"  and {len(losses) - _SHOWN:,} more"


def _row(item: Loss, now: float) -> list[str]:
    packets = "-" if item.packets is None else count_text(item.packets)
    ago = f"last {format_duration(now - item.last)} ago"
    return [f"  {item.source}", door_text(item), packets, ago, item.rule]


def peer_data(peer: PeerTraffic) -> dict[str, Any]:
    """Return a peer for machines; `let_through` is null where rules count it with others."""
    return {
        "name": peer.name,
        "let_through": {"sip": _count(peer.sip), "rtp": _count(peer.rtp)},
        "dropped_packets": peer.dropped,
        "last_dropped": None if peer.last is None else round(peer.last, 3),
        "media_ports": [str(item) for item in peer.media_ports],
        "problems": list(peer.sentences()),
        "dropped": [
            {
                "source": str(item.source),
                "transport": item.door.proto.value,
                "port": item.door.port,
                "in_media_ports": peer.in_media_ports(item),
                "beside": item in peer.beside,
                "packets": item.packets,
                "first": None if item.first is None else round(item.first, 3),
                "last": round(item.last, 3),
                "rule": item.rule,
            }
            for item in (*peer.losses, *peer.beside)
        ],
    }


def _count(count: Count | None) -> dict[str, int] | None:
    return None if count is None else {"packets": count.packets, "bytes": count.bytes}
