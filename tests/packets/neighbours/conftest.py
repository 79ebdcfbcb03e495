"""The firewalls of the packet tests, and the rendered script as one more of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from packets.conftest import BACKENDS, FLAVOURS
from packets.evidence.script_backend import Script
from packets.firewall import Backend, Firewall, Iptables, Nftables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Lab

Request: TypeAlias = pytest.FixtureRequest


@pytest.fixture(params=(*BACKENDS, "script"))
def firewall(request: Request, lab: Lab, lock_file: Path, tmp_path: Path) -> Iterator[Firewall]:
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
