"""Fixtures of the tests of RTP: each form of the firewall, the one without ipset among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from packets.conftest import BACKENDS, FLAVOURS
from packets.evidence.script_backend import Script
from packets.firewall import Backend, Firewall, Iptables, Nftables, SetlessIptables
from packets.media.scene import Media

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Family, Lab

Request: TypeAlias = pytest.FixtureRequest

FORMS = (*BACKENDS, "script", "setless")


@pytest.fixture(params=FORMS)
def firewall(request: Request, lab: Lab, lock_file: Path, tmp_path: Path) -> Iterator[Firewall]:
    name: str = request.param
    backend: Backend
    if name == "script":
        backend = Script(lab.switch, lock_file, tmp_path)
    elif name == "setless":
        backend = SetlessIptables(lab.switch, "legacy", lock_file)
    elif name in FLAVOURS:
        backend = Iptables(lab.switch, FLAVOURS[name], lock_file)
    else:
        backend = Nftables(lab.switch)
    built = Firewall(lab.switch, backend)
    yield built
    built.clear()


@pytest.fixture
def media(lab: Lab, firewall: Firewall, family: Family) -> Media:
    return Media(lab, firewall, family)
