"""One laboratory per worker, and an empty firewall in it for every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, get_args

import pytest

from lab import Family, Lab, unavailable_reason
from packets.firewall import Firewall, Iptables

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAVOURS = {"legacy": "legacy", "nft-flavour": "nft"}
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
    yield shared_lab
    shared_lab.reset()


@pytest.fixture(params=get_args(Family))
def family(request: Request) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(params=FLAVOURS)
def firewall(
    request: Request, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Firewall]:
    lock_file = tmp_path_factory.getbasetemp() / "xtables.lock"
    backend = Iptables(lab.switch, FLAVOURS[request.param], lock_file)
    built = Firewall(lab.switch, backend)
    yield built
    built.clear()
