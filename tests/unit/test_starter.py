"""Whatever `init` finds, what it writes is a policy that `check` accepts."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from sipfw.policy.load import LoadedPolicy, Request, load, shipped_profiles, shipped_switches
from sipfw.policy.starter import starter_policy
from sipfw.ruleset.match import PortRange

if TYPE_CHECKING:
    from pathlib import Path


def _starter(tmp_path: Path, **found: object) -> LoadedPolicy:
    values: dict[str, object] = {
        "profile": "default",
        "switch": None,
        "admin_networks": [],
        "udp_ports": [],
        "tcp_ports": [],
        "interfaces": [],
        **found,
    }
    policy = tmp_path / "policy.yaml"
    policy.write_text(starter_policy(**values), encoding="utf-8")  # type: ignore[arg-type]
    return load(Request(policy))


@pytest.mark.parametrize(
    ("profile", "switch"), list(product(shipped_profiles(), [None, *shipped_switches()]))
)
def test_every_choice(profile: str, switch: str | None, tmp_path: Path) -> None:
    policy = _starter(tmp_path, profile=profile, switch=switch).policy
    assert (policy.profile, policy.switch) == (profile, switch)


@pytest.mark.parametrize(
    "networks", [["192.0.2.7"], ["2001:db8::7"], ["192.0.2.0/28", "2001:db8::/32"]]
)
def test_admin_networks(networks: list[str], tmp_path: Path) -> None:
    policy = _starter(tmp_path, admin_networks=networks).policy
    assert len(policy.admin.networks) == len(networks)


def test_sockets_and_interfaces(tmp_path: Path) -> None:
    policy = _starter(
        tmp_path, udp_ports=(5060, 5160), tcp_ports=(5060, 5061), interfaces=("eth0", "br-1")
    ).policy
    assert policy.signalling.udp == (PortRange(5060, 5060), PortRange(5160, 5160))
    assert policy.signalling.tcp == (PortRange(5060, 5060),)
    assert policy.signalling.tls == (PortRange(5061, 5061),)
    assert policy.host.interfaces == ()


@pytest.mark.parametrize(
    ("switch", "ports"),
    [
        ("asterisk", (5060, 5061)),
        pytest.param(
            "freeswitch",
            (5060, 5061, 5066, 5080, 5081, 7443),
        ),
    ],
)
def test_the_sockets_of_a_running_switch(
    switch: str, ports: tuple[int, ...], tmp_path: Path
) -> None:
    assert _starter(tmp_path, switch=switch, tcp_ports=ports, udp_ports=(5060,))


@pytest.mark.parametrize(
    ("interfaces", "hint"),
    [
        (("eth0", "docker0"), "behind: [docker0]"),
        (("docker0", "br-0123456789ab"), "behind: [docker0, 'br-*']"),
        (("eth0", "br-lan"), None),
    ],
)
def test_bridges_of_containers_are_pointed_out(
    interfaces: tuple[str, ...], hint: str | None, tmp_path: Path
) -> None:
    policy = _starter(tmp_path, interfaces=interfaces).policy
    text = (tmp_path / "policy.yaml").read_text(encoding="utf-8")
    assert policy.signalling.behind == ()
    assert (hint in text) if hint else ("behind:" not in text)
