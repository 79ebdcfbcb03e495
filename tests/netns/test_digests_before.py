"""A firewall that stands with digests of the time when they were made of reprs.

`verify` compares record and kernel, which agree; the first apply gives every rule its new mark.
"""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

POLICY = """\
profile: default
trusted_peers: [{name: a, signalling: [203.0.113.10, "2001:db8:5::/64"]}]
scanners: {user_agents: {add: [FirstDialer]}}
"""
APPLY_AS_BEFORE = """\
import hashlib
from dataclasses import replace
from sipfw.cli import main
from sipfw.lower import iptables, iptables_match, nftables

def digest(data):
    return hashlib.sha256(repr(data).encode()).hexdigest()[:8]

iptables.comment = lambda name, rule, family: (
    f"sipfw:{name}#{digest((family.value, replace(rule, comment='')))}")
iptables_match.hashlimit_name = lambda name, params: f"sf-{name[:6]}-{digest(params)}"[:15]
nftables.nft_comment = lambda name, rule: f"sipfw:{name}#{digest(rule)}"
nftables.text_chain_name = lambda chain, rules: f"{chain}_text_{digest(rules)}"
main()
"""
SEND = """\
import socket
request = b"OPTIONS sip:1@127.0.0.1 SIP/2.0"
socket.socket(type=socket.SOCK_DGRAM).sendto(request, ("127.0.0.1", 5060))
"""
_MARK = re.compile(r'"sipfw:([^#"]+)#([0-9a-f]{8})"')


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-digests-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Host(name, tmp_path)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "nftables"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def words(host: Host, backend: str) -> tuple[str, ...]:
    return "--root", str(host.root), "--backend", backend, "--policy", host.policy(POLICY)


def listing(host: Host, backend: str) -> str:
    tools = {
        "iptables-legacy": ("iptables-legacy-save -c", "ip6tables-legacy-save -c"),
        "iptables-nft": ("iptables-nft-save -c", "ip6tables-nft-save -c"),
        "nftables": ("nft list table inet sipfw",),
    }
    return "".join(host.run(*tool.split()).stdout for tool in tools[backend])


def marks(host: Host, backend: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule_id, digest in _MARK.findall(listing(host, backend)):
        found.setdefault(rule_id, set()).add(digest)
    return found


def packets(host: Host, backend: str) -> dict[str, int]:
    """Add up the packets of each rule that was met."""
    found: dict[str, int] = {}
    for line in listing(host, backend).splitlines():
        mark, counter = _MARK.search(line), re.search(r"(?:^\[|counter packets )(\d+)", line)
        if mark and counter and int(counter[1]):
            found[mark[1]] = found.get(mark[1], 0) + int(counter[1])
    return found


def diff(host: Host, backend: str, code: int) -> dict[str, Any]:
    done = host.must("diff", *words(host, backend)[2:], "--json", code=code)
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def test_an_upgrade_is_clean_and_its_first_apply_changes_marks_alone(
    host: Host, backend: str
) -> None:
    done = host.python(APPLY_AS_BEFORE, "apply", *words(host, backend))
    assert done.returncode == 0, done.stderr
    before = marks(host, backend)
    for _ in range(3):
        host.run("python3", "-c", SEND)
    met = packets(host, backend)
    assert met
    host.must("verify")
    assert marks(host, backend) == before

    plan = diff(host, backend, 1)
    assert {item["action"] for item in plan["rules"]} == {"change"}
    assert {item["action"] for item in plan["jumps"]} == {"change"}
    assert plan["sets"] == plan["sysctls"] == []

    host.must("apply", *words(host, backend)[2:])
    after = marks(host, backend)
    assert after.keys() == before.keys()
    assert not any(after[rule_id] & before[rule_id] for rule_id in after)
    now = packets(host, backend)
    assert {name: now.get(name, 0) for name in met} == met
    assert diff(host, backend, 0)["same"]
    host.must("verify")
