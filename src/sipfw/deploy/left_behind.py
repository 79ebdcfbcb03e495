"""What of ours lives where the firewall that comes is not: rules of a saved file, empty sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.backends.detect import look
from sipfw.backends.ipset import Ipsets
from sipfw.backends.iptables_shared import drop_obsolete_sets
from sipfw.backends.runner import SubprocessRunner
from sipfw.errors import BackendError
from sipfw.lower.xtables import XPlan

if TYPE_CHECKING:
    from sipfw.deploy.live import Firewall


def elsewhere(firewall: Firewall) -> tuple[str, ...]:
    """Name the other backends in which rules of ours are live: they would judge a second time."""
    try:
        return tuple(sorted(look().ours - {firewall.backend}))
    except BackendError:
        return ()


def drop_left_sets(firewall: Firewall) -> list[str]:
    """Destroy the ipsets that a firewall of nftables does not use; return notes. Raises nothing."""
    if firewall.backend != "nftables":
        return []
    try:
        return drop_obsolete_sets(Ipsets(SubprocessRunner()), XPlan((), ()))
    except BackendError as error:
        return [f"sets of an earlier firewall may be left: {error.message}"]
