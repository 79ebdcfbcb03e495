"""Who comes through a tunnel, a proxy or an odd daemon: the guard's answer, then the kernel's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from shared_host import BACKENDS, SharedHost
from tunnel_scene import INNER, LOGIN, PROXY, SSHD, TunnelScene, answered, start

from lab import unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import TcpConnection

pytestmark = pytest.mark.netns

# Everybody is within the admin networks: what is missing is what carries them.
ADMIN = {"networks": [INNER, "192.0.2.0/24"]}
NARROW = {"admin": ADMIN}
MENDED = {
    "admin": {**ADMIN, "web_ports": [2022]},
    "host": {
        "udp_ports": [4789, 51820, 1194],
        "tcp_ports": [8443, 8022],
        "interfaces": ["carrier"],
    },
}


@pytest.fixture
def scene() -> Iterator[TunnelScene]:
    reason = unavailable_reason()
    if reason is not None:
        pytest.skip(reason)
    with TunnelScene() as built:
        start(built.switch, SSHD, "22")
        yield built


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, scene: TunnelScene, tmp_path: Path) -> SharedHost:
    return SharedHost(scene.switch, str(request.param), tmp_path)


def everybody(scene: TunnelScene) -> dict[str, TcpConnection]:
    """Log in by each way; the key is what the guard must say of it."""
    office, carrier, switch = scene.lab.office, scene.lab.hosts["carrier"], scene.switch
    scene.vxlan(1, 4789, office, "vx0")
    # Within the VXLAN, so that both must stay open.
    scene.wireguard(2, 51820, scene.inner(1, 1), office)
    scene.program(3, "udp", 1194, office)
    scene.program(4, "raw", 47, carrier)
    scene.program(5, "tcp", 8443, office)
    start(switch, LOGIN, "2022", "gate")
    start(switch, PROXY, "8022", "22")
    wireguard = scene.device(switch)
    return {
        r"the tunnel vx0 \(vxlan\).* UDP port 4789 from 192.0.2.100, would be cut off: .*"
        r"; host.udp_ports: add 4789": scene.login(office, scene.inner(1, 1)),
        rf"the tunnel {wireguard} \(tun\).* UDP port 51820 from {scene.inner(1, 2)}, could not "
        r"come back .*; host.udp_ports: add 51820": scene.login(office, scene.inner(2, 1)),
        r"the tunnel tun3 \(tun\).* UDP port 1194, could not come back .*"
        r"; host.udp_ports: add 1194": scene.login(office, scene.inner(3, 1)),
        r"the tunnel tun4 \(tun\).* IP protocol 47 \(GRE\), could not come back .*"
        r"; host.interfaces: add carrier or host.protocols: add gre": scene.login(
            carrier, scene.inner(4, 1)
        ),
        r"the tunnel tun5 \(tun\).* TCP port 8443 from 192.0.2.100, could not come back .*"
        r"; admin.web_ports: add 8443, or host.tcp_ports: add 8443": scene.login(
            office, scene.inner(5, 1)
        ),
        r"the terminal client 192.0.2.100 \(gate\) could not log in again on port 2022.*"
        r"; admin.web_ports: add 2022": scene.login(office, "192.0.2.1", 2022),
        r"the ssh client 127.0.0.1 .*the proxy stunnel.* TCP port 8022 from 192.0.2.100, could "
        r"not come back .* or host.tcp_ports: add 8022": scene.login(office, "192.0.2.1", 8022),
    }


def test_nobody_is_shut_out_by_what_carries_him(scene: TunnelScene, host: SharedHost) -> None:
    sessions = everybody(scene)
    before = host.everything()
    refused = host.sipfw("apply", "--backend", host.backend, "--policy", host.policy(NARROW))
    assert refused.returncode == 4, refused.stderr
    lines = [line for line in refused.stderr.splitlines() if " client " in line]
    unsaid = [text for text in sessions if not any(re.search(text, line) for line in lines)]
    assert unsaid == [], refused.stderr
    assert len(lines) == len(sessions), refused.stderr
    assert host.everything() == before

    host.apply(MENDED)
    host.run("conntrack", "-F")
    assert [text for text, session in sessions.items() if not answered(session)] == []
    host.must("remove")

    # The guard was right about each of them.
    host.apply(NARROW, "--force")
    host.run("conntrack", "-F")
    assert [text for text, session in sessions.items() if answered(session)] == []


@pytest.mark.parametrize("host", ["nftables"], indirect=True)
def test_confirm_asks_who_has_come_since(scene: TunnelScene, host: SharedHost) -> None:
    host.apply(NARROW, "--confirm", "300")
    # The switch opens it, so its packets come in as answers: until they are forgotten.
    scene.program(1, "udp", 1194, scene.lab.office, dials=True)
    scene.switch.ping(scene.inner(1, 2))
    session = scene.login(scene.lab.office, scene.inner(1, 1))
    refused = host.sipfw("confirm")
    assert refused.returncode == 4
    assert re.search(
        r"not confirmed, for somebody has come since the apply: .*ssh client 198.51.100.18 "
        r"\(connected now\) comes through the tunnel tun1 \(tun\).*; what was in force before "
        r"comes back in 4 min \d+ s, or sipfw confirm --force\n",
        refused.stderr,
    ), refused.stderr
    assert (host.root / "var/lib/sipfw/pending.json").exists()
    forced = host.sipfw("confirm", "--force")
    assert forced.returncode == 0
    assert "FORCED: the ssh client 198.51.100.18" in forced.stderr
    assert "confirmed: generation 1 stays" in forced.stderr
    assert answered(session)
    # Who was forced out by the apply itself was named there.
    host.apply(NARROW, "--set", "bans.duration=9m", "--force", "--confirm", "300")
    assert host.sipfw("confirm").returncode == 0
