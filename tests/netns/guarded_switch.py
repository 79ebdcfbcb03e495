"""A switch of the lab with a firewall in force, for tests that look at what it does."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest
from shared_host import SharedHost

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

BACKENDS = ("iptables-legacy", "nftables")
SCAN = b"OPTIONS sip:100@198.51.100.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n"


@dataclass(frozen=True, slots=True)
class GuardedSwitch:
    """The switch and those who send to it."""

    lab: Lab
    host: SharedHost

    def send(self, role: str, count: int) -> None:
        sender = self.lab.hosts[role]
        target = self.lab.switch.address_for(sender)
        for _ in range(count):
            sender.send_udp(target, 5060, SCAN)

    def forget(self) -> None:
        """Make sure that the next look is kept, however soon it comes after the last one."""
        for file in (self.host.root / "var/lib/sipfw/readings").glob("*.json"):
            file.unlink()


Switch = TypeVar("Switch", bound=GuardedSwitch)


@contextmanager
def guarded(
    kind: type[Switch],
    request: pytest.FixtureRequest,
    folders: pytest.TempPathFactory,
    policy: Mapping[str, Any],
) -> Iterator[Switch]:
    """Apply the policy with the backend that a fixture asks for."""
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker", "office")) as lab:
        host = SharedHost(lab.switch, request.param, folders.mktemp("switch"))
        # Where nobody listens verify says so, and not that all is well.
        lab.switch.tcp_sink(5060)
        host.apply(policy)
        yield kind(lab, host)
