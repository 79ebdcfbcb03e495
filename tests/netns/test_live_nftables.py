"""The nftables backend as an operator runs it."""

from __future__ import annotations

import json
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from test_live_commands import EXAMPLES, Host

from sipfw.policy.load import shipped_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

BACKEND = ("--backend", "nftables")
FOREIGN = """\
table ip other {
\tchain input {
\t\ttype filter hook input priority 5; policy accept;
\t\tip saddr 198.51.100.1 counter packets 3 bytes 99 drop comment "theirs"
\t}
}
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    name = f"sipfw-nft-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def nft(host: Host, *words: str, stdin: str = "") -> str:
    done = host.run("nft", *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_goes_live_verifies_and_goes(host: Host, example: Path) -> None:
    host.must("apply", *BACKEND, "--policy", str(example))
    assert "the live firewall is the applied one" in host.must("verify").stdout
    host.must("verify", *BACKEND, "--policy", str(example))
    host.must("remove")
    assert nft(host, "list", "tables") == ""


def test_every_profile_replaces_the_one_before(host: Host) -> None:
    for profile in shipped_profiles():
        host.must("apply", *BACKEND, "--policy", host.policy(), "--profile", profile)
        host.must("verify")


def test_bans_and_counters_survive_another_list_of_signatures(host: Host) -> None:
    policy = host.policy()
    host.must("apply", *BACKEND, "--policy", policy)
    nft(host, "add element inet sipfw banned4 { 198.51.100.9 }")
    change = ("--set", "scanners.user_agents.add=[EvilDialer]", "--set", "bans.duration=2h")
    host.must("apply", *BACKEND, "--policy", policy, *change)
    assert "198.51.100.9" in nft(host, "list", "set", "inet", "sipfw", "banned4")
    ids = {rule["id"] for rule in json.loads(host.must("verify", "--json").stdout)["rules"]}
    assert "scanner.ua.user-evildialer" in ids


def test_a_foreign_table_and_its_counter_survive(host: Host) -> None:
    nft(host, "-f", "-", stdin=FOREIGN)
    before = nft(host, "list", "table", "ip", "other")
    host.must("apply", *BACKEND, "--policy", host.policy())
    host.must("apply", *BACKEND, "--policy", host.policy(), "--set", "limits.aggregate=9/second")
    assert nft(host, "list", "table", "ip", "other") == before
    host.must("remove")
    assert nft(host, "list", "table", "ip", "other") == before


def test_the_other_backend_is_refused_while_one_is_live(host: Host) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    done = host.must("apply", "--policy", host.policy(), code=4)
    assert "sipfw is live in nftables already" in done.stderr
    assert host.saved() == []


TAMPERING = {
    "flush chain inet sipfw SIP_TRUSTED4": ("missing", "rule", "trusted.accept"),
    "insert rule inet sipfw SIP_SIGNALLING6 accept": ("extra", "rule", "SIP_SIGNALLING"),
    "flush chain inet sipfw raw_prerouting": ("missing", "jump", "raw_prerouting"),
    "add element inet sipfw trusted4 { 198.51.100.99 }": (
        "extra",
        "set element",
        "trusted4 198.51.100.99",
    ),
    "add set inet sipfw mine { type ipv4_addr; }": ("extra", "set", "mine"),
}


@pytest.mark.parametrize("command", TAMPERING)
def test_tampering_is_named_and_mended(host: Host, command: str) -> None:
    host.must("apply", *BACKEND, "--policy", host.policy())
    nft(host, command)
    kind, what, where = TAMPERING[command]
    found = json.loads(host.must("verify", "--json", code=1).stdout)["drift"]
    assert [d for d in found if (d["kind"], d["what"]) == (kind, what) and where in d["where"]]
    host.must("apply", *BACKEND, "--policy", host.policy())
    host.must("verify")


def test_dry_run_changes_nothing(host: Host) -> None:
    done = host.must("apply", *BACKEND, "--policy", host.policy(), "--dry-run")
    assert "into nftables" in done.stdout
    assert nft(host, "list", "tables") == ""
