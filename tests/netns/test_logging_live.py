"""Logging switched on and off under a live firewall, on every backend and in the script."""

from __future__ import annotations

import json
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from script_host import FLAVOURS, SHELLS, script
from script_host import Host as ScriptHost
from test_live_commands import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns
pytest_plugins = ("script_fixtures",)

BACKENDS = ("iptables-legacy", "iptables-nft", "nftables")
LAYERS = "trusted, banned, scanner-block, rate-limit, learned, host"
# Without this setting, which a namespace cannot have and verify would name.
POLICY = """\
admin: {networks: [192.0.2.0/28, "2001:db8:ad::/64"]}
trusted_peers: [{name: a, signalling: [203.0.113.10, "2001:db8:5::/64"], tier: large}]
signalling: {udp: [5060], tcp: [5060], tls: [5061]}
conntrack: {max: null}
"""
EVERY_LAYER = f"logging: {{layers: [{LAYERS}, entry]}}\n"


@pytest.fixture
def plain_host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-log-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def everything(host: Host) -> str:
    """Return what all three tools list."""
    shown = ("iptables-legacy-save", "ip6tables-legacy-save", "nft list ruleset")
    return "".join(host.run(*words.split()).stdout for words in shown)


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_and_off_again(plain_host: Host, backend: str) -> None:
    host, chosen = plain_host, ("--backend", backend)
    policy = host.policy(POLICY + EVERY_LAYER)
    for reader in ("nflog", "log"):
        host.must("apply", *chosen, "--policy", policy, "--set", f"logging.to={reader}")
        assert "sipfw host.drop " in everything(host)
    host.must("apply", *chosen, "--policy", host.policy(POLICY))
    assert "SIP_LOG_" not in everything(host)
    host.must("rollback")
    assert "sipfw host.drop " in everything(host)
    host.must("verify")
    host.must("remove")
    assert "sipfw" not in everything(host)


@pytest.mark.parametrize("backend", BACKENDS)
def test_verify_finds_a_log_that_somebody_took_out(plain_host: Host, backend: str) -> None:
    host = plain_host
    host.must("apply", "--backend", backend, "--policy", host.policy(POLICY + EVERY_LAYER))
    report = json.loads(host.must("verify", "--json").stdout)
    (chain,) = {r["chain"] for r in report["rules"] if r["id"] == "log.banned.drop.note"}
    if backend == "nftables":
        host.run("nft", "flush", "chain", "inet", "sipfw", f"{chain}4")
    else:
        host.run(backend, "-t", "raw", "-D", chain, "1")
    found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
    assert "log.banned.drop.note" in json.dumps(found)


@pytest.mark.parametrize("reader", ["log", "nflog"])
@pytest.mark.parametrize(("flavour", "shell"), list(zip(FLAVOURS, SHELLS, strict=True)))
def test_the_script_loads_the_logs_and_takes_them_out(
    make_host: Callable[[str, str], ScriptHost], flavour: str, shell: str, reader: str
) -> None:
    host = make_host(flavour, shell)
    text = script("default", f"logging.layers=[{LAYERS}]", f"logging.to={reader}")
    host.must(text)
    assert "sipfw host.drop " in "\n".join(host.listing())
    assert host.must(text, "status") == ""
    host.must(script())
    assert "SIP_LOG_" not in "\n".join(host.listing())
    host.must(script(), "remove")
    assert host.listing() == []
