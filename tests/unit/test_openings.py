"""The interface to the Internet is not taken for the bridge of a container."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.openings import names_containers, require_no_opening
from sipfw.deploy.proc_net import way_to, ways_out
from sipfw.diagnostics import Severity
from sipfw.errors import BackendError
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset

ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
docker0\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ROUTES6 = """\
{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo
{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 wan1
"""


def behind(tmp_path: Path, names: str) -> Ruleset:
    path = tmp_path / "policy.yaml"
    path.write_text(f"signalling:\n  behind: {names}\n")
    return compile_policy(load(Request(path)))


@pytest.mark.parametrize("names", ["[eth0]", "[docker0, 'eth*']", "['e*']"])
def test_the_way_to_the_internet_is_refused(names: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"policy.yaml:2: .*eth0 is where the default") as caught:
        require_no_opening(behind(tmp_path, names), outside={"eth0"})
    assert "--force" in str(caught.value.hint)


def test_force_makes_it_a_warning(tmp_path: Path) -> None:
    (found,) = require_no_opening(behind(tmp_path, "[eth0]"), force=True, outside={"eth0"})
    assert found.severity is Severity.WARNING
    assert found.message.startswith("FORCED: eth0")


@pytest.mark.parametrize("names", ["[docker0, 'br-*']", "[eth01]", "[]"])
def test_other_interfaces_are_no_opening(names: str, tmp_path: Path) -> None:
    ruleset = behind(tmp_path, names)
    assert require_no_opening(ruleset, outside={"eth0"}) == []
    assert names_containers(ruleset) == (names != "[]")


def test_routes_are_read(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/route").write_text(ROUTES)
    (tmp_path / "net/ipv6_route").write_text(ROUTES6.format(zero="0" * 32))
    assert ways_out(tmp_path) == {"eth0", "wan1"}
    assert way_to(ip_address("198.51.100.7"), tmp_path) == "docker0"
    assert way_to(ip_address("203.0.113.7"), tmp_path) == "eth0"
    assert way_to(ip_address("2001:db8::7"), tmp_path) == "wan1"


def test_a_host_without_routes_has_no_way_out(tmp_path: Path) -> None:
    assert ways_out(tmp_path) == frozenset()
