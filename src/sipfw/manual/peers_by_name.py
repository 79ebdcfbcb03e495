"""The sources of a trusted peer of the policy in force, by the peer's name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compiler.manual import MOST_GUESTS
from sipfw.manual.change import in_force, refuse
from sipfw.policy.types import Hostname

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.host.files import Layout
    from sipfw.policy.model import Peer
    from sipfw.ruleset.addresses import IpAddress


@dataclass(frozen=True, slots=True)
class PeerSources:
    """The addresses of peers, and what is asked of DNS for their host names."""

    addresses: tuple[IpAddress, ...]
    keys: tuple[str, ...]


def sources_of_peers(layout: Layout, names: Iterable[str]) -> PeerSources:
    """Return what these peers send SIP from.

    Raises BackendError for a name that no peer has, and for a network that is too wide.
    """
    known = {peer.name: peer for peer in in_force(layout).policy.trusted_peers}
    asked = list(dict.fromkeys(names))
    refuse(fault for name in asked for fault in _faults(name, known))
    entries = [entry for name in asked for entry in known[name].signalling]
    return PeerSources(
        tuple(a for entry in entries if not isinstance(entry, Hostname) for a in entry),
        tuple(entry.key for entry in entries if isinstance(entry, Hostname)),
    )


def _faults(name: str, known: dict[str, Peer]) -> Iterator[str]:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]}?" if near else "see sipfw peer list"
        yield f"'{name}' is no trusted peer of the firewall in force; {advice}"
        return
    for entry in known[name].signalling:
        if not isinstance(entry, Hostname) and entry.num_addresses > MOST_GUESTS:
            yield f"{name}: {entry} has more than {MOST_GUESTS:,} addresses to trust for a time"
