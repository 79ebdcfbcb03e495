"""IP protocols without ports, with packets: open where the policy names them, shut elsewhere."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from shared_host import BACKENDS, SharedHost

from lab import Lab, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

VRRP, OSPF, GRE, ESP = 112, 89, 47, 50
POLICY = {
    "admin": {"networks": ["192.0.2.0/28"]},
    "host": {"protocols": ["vrrp", "GRE", "esp"]},
}
# A raw socket has what netfilter let through (raw(7)).
_LISTEN = """\
import json, select, socket, sys
kinds = [(f, int(n)) for n in sys.argv[1:] for f in (socket.AF_INET, socket.AF_INET6)]
opened = {socket.socket(f, socket.SOCK_RAW, n): (f, n) for f, n in kinds}
print("ready", flush=True)
seen = set()
while True:
    ready, _, _ = select.select(list(opened), [], [], 3)
    if not ready:
        break
    for each in ready:
        each.recv(2048)
        family, number = opened[each]
        seen.add((4 if family == socket.AF_INET else 6, number))
print(json.dumps(sorted(seen)), flush=True)
"""
_SEND = """\
import socket, sys
for n in map(int, sys.argv[3:]):
    for family, there in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
        with socket.socket(family, socket.SOCK_RAW, n) as out:
            out.sendto(bytes(32), (there, 0))
"""


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    reason = unavailable_reason()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    with Lab(hosts=("attacker",)) as lab:
        yield lab


@pytest.mark.parametrize("backend", BACKENDS)
def test_named_protocols_pass_and_others_do_not(
    backend: str, shared_lab: Lab, tmp_path: Path
) -> None:
    host = SharedHost(shared_lab.switch, backend, tmp_path)
    host.apply(POLICY)
    numbers = [str(number) for number in (VRRP, OSPF, GRE, ESP)]
    heard = shared_lab.switch.popen([sys.executable, "-c", _LISTEN, *numbers])
    assert heard.stdout is not None
    assert heard.stdout.readline() == "ready\n"
    there = [shared_lab.switch.address_for(shared_lab.attacker, f) for f in ("ip", "ip6")]
    shared_lab.attacker.run([sys.executable, "-c", _SEND, *there, *numbers])
    found = {(version, n) for version in (4, 6) for n in (VRRP, GRE, ESP)}
    assert {tuple(item) for item in json.loads(heard.stdout.readline())} == found
    said = host.sipfw("verify", "--rules").stdout
    assert "host.protocol-vrrp" in said
    host.must("verify")
    host.must("remove")
