"""The worst hour with packets: who gets in, and that all is as before when it is over."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from test_bans import ATTACKER, ATTACKER6, Guarded, arrives, connects, request_of, shared_lab

from lab import warm

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Lab

__all__ = ["shared_lab"]

pytestmark = pytest.mark.netns

POLICY = """\
profile: default
admin: {networks: [192.0.2.0/28]}
host: {tcp_ports: [8443]}
trusted_peers: {carrier-a: [203.0.113.10, "2001:db8:5::/64"]}
signalling: {udp: [5060], tcp: [5060], tls: [5061]}
media: {ports: 10000-20000}
"""


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "nftables"])
def switch(request: pytest.FixtureRequest, shared_lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    host = Guarded(shared_lab, tmp_path, str(request.param))
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    host.must("apply", "--policy", str(policy), "--yes")
    yield host
    host.must("remove")
    host.restart()
    shared_lab.reset()


def panic(host: Guarded, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {"XTABLES_LOCKFILE": str(host.folder / "lock"), "SIPFW_BACKEND": host.backend}
    line = ["panic", words[0], "--root", str(host.root), *words[1:]]
    done = warm.run(host.lab.switch.namespace, line, env=env, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def marks(host: Guarded) -> list[tuple[Any, ...]]:
    """Return all rules that the kernel has, by id, with their families."""
    report = json.loads(host.must("verify", "--json").stdout)
    return [
        (rule["chain"], rule["id"], sorted(f for f, n in rule["counts"].items() if n is not None))
        for rule in report["rules"]
    ]


def test_only_peers_get_in_and_all_is_as_before_afterwards(switch: Guarded) -> None:
    lab = switch.lab
    sip, rtp = lab.switch.udp_sink(5060), lab.switch.udp_sink(10500)
    for port in (5061, 8443):
        lab.switch.tcp_sink(port)
    switch.put("learned", ATTACKER)
    before = marks(switch)
    assert arrives(lab, sip)
    assert arrives(lab, sip, source=ATTACKER6)
    assert connects(lab, 8443)

    said = panic(switch, "on").stderr
    assert "only 1 trusted peer can call then" in said
    for method in ("OPTIONS", "REGISTER", "INVITE", "ACK"):
        assert not arrives(lab, sip, method)
        assert not arrives(lab, sip, method, ATTACKER6)
    assert not connects(lab, 5061)
    assert not connects(lab, 8443)
    there = lab.switch.address_for(lab.carrier)
    sip.clear()
    lab.carrier.send_udp(there, 5060, request_of("INVITE", "203.0.113.10"))
    assert sip.settle(0.2) == 1
    rtp.clear()
    lab.carrier.send_udp(there, 10500, [b"\x80\x00" + bytes(170)] * 20)
    assert rtp.settle(0.2) == 20
    assert switch.must("verify").stdout.startswith("PANIC: ")
    assert "panic: only trusted peers" in switch.must("why", ATTACKER).stdout
    refused = switch.must("apply", "--policy", str(switch.folder / "policy.yaml"), code=4)
    assert "sipfw panic off first" in refused.stderr
    assert "on already" in panic(switch, "on", code=4).stderr
    switch.must("keep")
    switch.must("refresh")
    assert not arrives(lab, sip)

    panic(switch, "off")
    assert marks(switch) == before
    assert switch.holds("learned", ATTACKER)
    assert arrives(lab, sip)
    assert connects(lab, 8443)
    assert "no panic is on" in panic(switch, "off").stderr


def test_bans_and_trusts_of_the_panic_outlive_it(switch: Guarded) -> None:
    lab = switch.lab
    sip = lab.switch.udp_sink(5060)
    panic(switch, "on", "--for", "10m")
    switch.must("trust", "198.51.100.67", "--for", "1h")
    assert arrives(lab, sip, source="198.51.100.67")
    switch.must("ban", ATTACKER)
    panic(switch, "off")
    assert not arrives(lab, sip)
    assert arrives(lab, sip, source="198.51.100.67")
    switch.must("verify")


def test_it_ends_by_itself(switch: Guarded) -> None:
    lab = switch.lab
    sip = lab.switch.udp_sink(5060)
    panic(switch, "on", "--for", "5s")
    deadline = time.monotonic() + 60
    while switch.run("verify").stdout.startswith("PANIC") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert arrives(lab, sip)
    # The watchdog writes its record when the kernel has the old rules.
    while switch.run("verify").returncode and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "PANIC" not in switch.must("verify").stdout
