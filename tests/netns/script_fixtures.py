"""Fixtures of the tests of the rendered script: hosts that go away with the test."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from script_host import FLAVOURS, SHELLS, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NUMBERS = itertools.count(1)


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[Callable[[str, str], Host]]:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("netns tests need root")
        pytest.skip("needs root")
    names: list[str] = []

    def make(iptables: str, shell: str) -> Host:
        name = f"sipfw-script-{os.getpid()}-{next(NUMBERS)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        names.append(name)
        folder = tmp_path / name
        folder.mkdir()
        return Host(name, iptables, shell, folder)

    yield make
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(params=list(zip(FLAVOURS, SHELLS, strict=True)), ids="-".join)
def host(request: pytest.FixtureRequest, make_host: Callable[[str, str], Host]) -> Host:
    return make_host(*request.param)


@pytest.fixture
def legacy(make_host: Callable[[str, str], Host]) -> Host:
    return make_host("iptables-legacy", "dash")
