"""Policies with many peers."""

from __future__ import annotations

from setups import ADMIN, TRUSTED, addresses

# No documentation network holds 200,000 addresses; no packet ever carries one of these.
PEERS_FROM = "10.0.0.0"
BANS_FROM = "10.128.0.0"

# As a switch with many customers would write it: some addresses each.
_ADDRESSES_PER_PEER = 100


def peer_policy(count: int) -> str:
    """Return a policy with `count` trusted addresses, the benchmark's carrier among them."""
    # Every second address, or the compiler would join neighbours into networks.
    found = [*TRUSTED[:1], *list(addresses(PEERS_FROM, 2 * count))[: 2 * count - 2 : 2]]
    groups = [
        found[start : start + _ADDRESSES_PER_PEER]
        for start in range(0, len(found), _ADDRESSES_PER_PEER)
    ]
    peers = "".join(
        f"  - {{name: peer-{number}, signalling: [{', '.join(group)}]}}\n"
        for number, group in enumerate(groups)
    )
    return (
        f"profile: wholesale\nadmin: {{networks: [{ADMIN}]}}\nbans: {{size: 131072}}\n"
        f"trusted_peers:\n{peers}"
    )
