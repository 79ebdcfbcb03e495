"""Fixtures of the tests of the evidence: sockets, a scripted switch, many addresses, the script."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from packets.conftest import BACKENDS, FLAVOURS
from packets.evidence.scene import Scene
from packets.evidence.script_backend import Script
from packets.evidence.wire import Wire
from packets.firewall import Backend, Firewall, Iptables, Nftables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Lab

Request: TypeAlias = pytest.FixtureRequest


@pytest.fixture(params=BACKENDS)
def firewall(request: Request, lab: Lab, lock_file: Path, tmp_path: Path) -> Iterator[Firewall]:
    """Return an empty firewall; tests of the main rows ask for the form `script` as well."""
    name: str = request.param
    backend: Backend
    if name == "script":
        backend = Script(lab.switch, lock_file, tmp_path)
    elif name in FLAVOURS:
        backend = Iptables(lab.switch, FLAVOURS[name], lock_file)
    else:
        backend = Nftables(lab.switch)
    built = Firewall(lab.switch, backend)
    yield built
    built.clear()


@pytest.fixture
def scene(lab: Lab, firewall: Firewall) -> Iterator[Scene]:
    wire = Wire()
    built = Scene(lab, firewall, wire)
    yield built
    built.close()
    wire.close()
