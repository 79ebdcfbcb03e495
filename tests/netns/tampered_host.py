"""A host with a firewall that is tampered with and put right again and again."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from namespace_thread import thread_inside
from shared_host import SharedHost
from tampering_hands import IptablesHand, NftHand

from lab import Node, namespaces, unavailable_reason
from sipfw.deploy.applied import read_applied
from sipfw.host.files import Layout
from sipfw.kernel.backend import backend_of
from sipfw.monitor.deep import deep_drift
from sipfw.monitor.inspect import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from typing import Any

    from tampering_cases import Named
    from tampering_hands import Hand

    from sipfw.compare.drift import Drift

POLICY: Mapping[str, Any] = {
    "admin": {"networks": ["192.0.2.0/28", "2001:db8:ad::/64"]},
    "trusted_peers": [
        {"name": "a", "signalling": ["203.0.113.10", "2001:db8:5::/64"]},
        {"name": "b", "signalling": ["198.51.100.128/25"], "tier": "small"},
    ],
    "tiers": {"enforce": True},
    "scanners": {"user_agents": {"add": ["EvilDialer"]}},
    # Not for a network namespace to set.
    "conntrack": {"max": None},
}


class TamperedHost:
    """The host, the hand that changes it, and what `sipfw verify` says of it."""

    def __init__(self, shared: SharedHost, inside: ThreadPoolExecutor) -> None:
        self.shared = shared
        self.inside = inside
        hands: type[Hand] = NftHand if shared.backend == "nftables" else IptablesHand
        self.hand: Hand = hands(shared, inside)

    @property
    def layout(self) -> Layout:
        return Layout(self.shared.root)

    def drift(self) -> tuple[Drift, ...]:
        """Return what `sipfw verify` names."""
        applied = read_applied(self.layout)
        assert applied is not None
        chosen = backend_of(applied.backend)
        return self.inside.submit(inspect, applied.expectation, chosen).result().drift

    def deep_drift(self) -> tuple[Drift, ...]:
        """Return what `sipfw verify --deep` names."""
        return self.inside.submit(deep_drift, self.layout).result()

    def undo(self) -> None:
        self.hand.undo()
        # Not an assertion: what is left behind is the fault of the hands.
        if left := self.drift():
            pytest.fail(f"not undone: {left}")


@contextmanager
def tampered_host(
    backend: str, folder: Path, policy: Mapping[str, Any] = POLICY, *before: str
) -> Iterator[TamperedHost]:
    """Make a host, run the commands of `before` there, and apply."""
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    name = f"{namespaces.fresh_prefix()}tampered"
    namespaces.batch([f"netns add {name}"])
    try:
        with thread_inside(name) as inside:
            shared = SharedHost(Node("host", name), backend, folder)
            for command in ("ip link set lo up", *before):
                shared.run(*command.split())
            shared.apply(policy)
            yield TamperedHost(shared, inside)
    finally:
        namespaces.remove([name])


def assert_named(found: tuple[Drift, ...], expected: list[Named]) -> None:
    """Compare all of it: one difference too many is a false alarm."""
    said = sorted((item.kind.value, item.what, item.where) for item in found)
    wanted = sorted((item.kind, item.what, item.where) for item in expected)
    assert said == wanted, (said, wanted)
    for item in expected:
        assert any(
            (each.kind.value, each.what, each.where) == (item.kind, item.what, item.where)
            and item.origin in each.origin
            and bool(item.origin) == bool(each.origin)
            and item.detail in each.detail
            for each in found
        ), (item, found)
