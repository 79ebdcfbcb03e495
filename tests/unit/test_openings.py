"""The interface to the Internet is not taken for the bridge of a container."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.lockout.openings import names_of_containers, require_no_opening
from sipfw.diagnostics import Severity
from sipfw.errors import BackendError
from sipfw.host.proc_net import way_to, ways_out
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
    assert bool(names_of_containers(ruleset)) == (names != "[]")


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


# The upper half of IPv4 and all that is routed of IPv6, which are no addresses of anybody.
HALF, ROUTED = f"{1 << 7}.0.0.0/1", f"{2000}::/3"
TABLES = f"""\
default proto static
\tnexthop via 192.0.2.1 dev wan0 weight 1
\tnexthop via 192.0.2.2 dev wan1 weight 1
default via 192.0.2.9 dev wan2 table 100
0.0.0.0/1 via 192.0.2.3 dev tun0
{HALF} via 192.0.2.3 dev tun1
198.51.100.0/24 dev docker0 scope link
unreachable default dev lo metric 4294967295 error -101
local 192.0.2.7 dev eth5 table local
{ROUTED} via fe80::1 dev six0 metric 1024
fe80::/64 dev eth5
blackhole 192.0.2.0/24
"""


def test_other_tables_and_halves_of_the_internet_are_ways_out(tmp_path: Path) -> None:
    assert ways_out(tmp_path, TABLES) == {"wan0", "wan1", "wan2", "tun0", "tun1", "six0"}
