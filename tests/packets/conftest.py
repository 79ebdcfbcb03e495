"""One laboratory per worker, and an empty firewall in it for every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, get_args

import pytest

from lab import Family, Lab, unavailable_reason
from packets.firewall import (
    Backend,
    BpfIptables,
    Firewall,
    Iptables,
    Nftables,
    SetlessIptables,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLAVOURS = {"legacy": "legacy", "nft-flavour": "nft"}
BACKENDS = (*FLAVOURS, "nftables")
Request: TypeAlias = pytest.FixtureRequest


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("carrier", "attacker", "office")) as built:
        yield built


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    before = _connections_opened(shared_lab)
    yield shared_lab
    shared_lab.reset()
    if _connections_opened(shared_lab) != before:
        # A closed socket repeats what a firewall dropped, and the next test would count it.
        for node in shared_lab.nodes:
            node.run(["ss", "-K", "-ta"])


def _connections_opened(lab: Lab) -> int:
    return sum(node.counters()["TcpActiveOpens"] for node in lab.nodes)


@pytest.fixture(params=get_args(Family))
def family(request: Request) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture
def lock_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "xtables.lock"


@pytest.fixture(params=BACKENDS)
def firewall(request: Request, lab: Lab, lock_file: Path) -> Iterator[Firewall]:
    name: str = request.param
    backend: Backend = (
        Iptables(lab.switch, FLAVOURS[name], lock_file)
        if name in FLAVOURS
        else Nftables(lab.switch)
    )
    built = Firewall(lab.switch, backend)
    yield built
    built.clear()


@pytest.fixture
def bpf_firewall(lab: Lab, lock_file: Path) -> Iterator[Firewall]:
    built = Firewall(lab.switch, BpfIptables(lab.switch, "nft", lock_file))
    yield built
    built.clear()


@pytest.fixture
def setless_firewall(lab: Lab, lock_file: Path) -> Iterator[Firewall]:
    built = Firewall(lab.switch, SetlessIptables(lab.switch, "legacy", lock_file))
    yield built
    built.clear()
