"""A trusted peer for policies that name none, as the shipped profiles do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sipfw.policy.model import Peer

if TYPE_CHECKING:
    from sipfw.policy.load import LoadedPolicy

_ADDRESSES = ("203.0.113.10", "2001:db8:fff0::10")


def with_trial_peer(loaded: LoadedPolicy) -> tuple[LoadedPolicy, str]:
    """Return the policy, with a peer where it has none, and what to say about that."""
    if loaded.policy.trusted_peers:
        return loaded, ""
    peer = Peer.model_validate({"name": "trial", "signalling": _ADDRESSES})
    policy = loaded.policy.model_copy(update={"trusted_peers": (peer,)})
    named = " and ".join(_ADDRESSES)
    return replace(loaded, policy=policy), f"the policy names no peer; {named} are one for a trial"
