"""What a guarded host will close is named before, told by the kernel's own tables."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from shared_host import SharedHost

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.netns

GUARDED: Mapping[str, Any] = {"admin": {"networks": ["198.51.100.66/32"]}}
# What keepalived, openvpn and a web server hold open.
DAEMON = """\
import signal, socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
group = socket.inet_aton("224.0.0.18") + socket.inet_aton("198.51.100.1")
raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
ospf = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 89)
vpn = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
vpn.bind(("0.0.0.0", 1194))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("0.0.0.0", 40000))
web = socket.create_server(("::", 8443), family=socket.AF_INET6, dualstack_ipv6=True)
own = socket.create_server(("127.0.0.1", 6379))
print("ready", flush=True)
signal.pause()
"""


def test_protocols_tunnels_and_ports_in_use(tmp_path: Path) -> None:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker",)) as lab:
        host = SharedHost(lab.switch, "nftables", tmp_path)
        ends = ["local", "198.51.100.1", "remote", "198.51.100.66"]
        kinds = {"gre": "tun-a", "ipip": "tun-b"}
        made = {
            kind
            for kind, name in kinds.items()
            if not lab.switch.run(
                ["ip", "link", "add", name, "type", kind, *ends], check=False
            ).returncode
        }
        vxlan = ["ip", "link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "8472"]
        if not lab.switch.run([*vxlan, *ends], check=False).returncode:
            made.add("vxlan")
        for name in (*kinds.values(), "vx"):
            lab.switch.run(["ip", "link", "set", name, "up"], check=False)
        daemon = lab.switch.popen([sys.executable, "-c", DAEMON])
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
        words = ("apply", "--backend", "nftables", "--yes", "--dry-run")
        said = host.sipfw(*words, "--policy", host.policy(GUARDED)).stderr
        assert "VRRP, IP protocol 112, is in use (attacker is in the group 224.0.0.18)" in said
        assert "OSPF, IP protocol 89, is in use (" in said
        assert "UDP 1194 is in use (OpenVPN, " in said
        assert "TCP 8443 (" in said
        assert "40000" not in said
        assert "6379" not in said
        lines = {"gre": "GRE, IP protocol 47,", "ipip": "IPIP, IP protocol 4,", "vxlan": "UDP 8472"}
        assert {kind for kind, text in lines.items() if text in said} == made
        opened = {**GUARDED, "host": {"udp_ports": [1194, 8472], "interfaces": ["attacker"]}}
        said = host.sipfw(*words, "--policy", host.policy(opened)).stderr
        assert "VRRP" not in said
        assert "UDP" not in said
