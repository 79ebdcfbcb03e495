"""Chains, sets and rules of others among ours: refused by apply, left alone by all the rest."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from shared_host import BACKENDS, SharedHost

from lab import Node, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns

FIRST = {"bans": {"duration": "1h"}}
SECOND = {"bans": {"duration": "2h"}}
OURS_OF_NFT = """
add chain inet sipfw mine { type filter hook input priority 5; policy accept; }
add rule inet sipfw mine ip saddr 198.51.100.66 counter drop
add chain inet sipfw user
add rule inet sipfw user ip saddr @banned4 counter drop
add set inet sipfw ports { type inet_service; }
add element inet sipfw ports { 7070 }
add map inet sipfw ways { type inet_service : verdict; }
"""


@pytest.fixture(params=BACKENDS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedHost]:
    name = f"{namespaces.fresh_prefix()}strange{uuid.uuid4().hex[:4]}"
    namespaces.batch([f"netns add {name}"])
    node = Node("host", name)
    try:
        yield SharedHost(node, request.param, tmp_path)
    finally:
        node.close()
        namespaces.remove([name])


def intrude(host: SharedHost) -> list[str]:
    """Put something of somebody else's where ours is, and return what must outlive sipfw."""
    if host.backend == "nftables":
        host.run("nft", "-f", "-", text=OURS_OF_NFT)
        return ["chain mine {", "198.51.100.66 counter", "set ports {", "7070", "map ways {"]
    host.run("ipset", "create", "sipfw-mine", "hash:ip")
    host.run("ipset", "add", "sipfw-mine", "198.51.100.7")
    host.run("ipset", "create", "sipfw-old4", "hash:net")
    return ["create sipfw-mine hash:ip", "add sipfw-mine 198.51.100.7", "create sipfw-old4"]


def holds(host: SharedHost) -> str:
    if host.backend == "nftables":
        return host.run("nft", "list", "ruleset")
    return host.run("ipset", "save")


def listed(host: SharedHost) -> list[str]:
    """Return everything but the times at which it was listed."""
    return [line for line in host.everything().splitlines() if not line.startswith("#")]


def test_what_is_not_ours_is_refused_or_left_alone(host: SharedHost) -> None:
    host.apply(FIRST)
    host.apply(SECOND)
    theirs = intrude(host)
    before = listed(host)
    again = ("apply", "--backend", host.backend, "--policy", host.policy(FIRST))
    for words in (again, (*again, "--dry-run")):
        refused = host.sipfw(*words)
        assert refused.returncode == 4, refused.stderr
        assert "not made by sipfw: " in refused.stderr
        assert "--adopt takes it out" in refused.stderr
    assert listed(host) == before

    back = host.sipfw("rollback")
    assert back.returncode == 0, back.stderr
    assert "left alone, since sipfw did not make it: " in back.stderr
    assert all(text in holds(host) for text in theirs)
    if host.backend == "nftables":
        # Its rule would keep the set of bans, whose time changes, from going.
        assert "since it used what of sipfw's had to go: chain user (1 rule)" in back.stderr
    restored = host.sipfw("restore")
    assert restored.returncode == 0, restored.stderr

    gone = host.sipfw("remove")
    assert gone.returncode == 0, gone.stderr
    assert "left alone, since sipfw did not make it: " in gone.stderr
    left = holds(host)
    assert all(text in left for text in theirs)
    assert "SIP_" not in left
    assert "trusted" not in left


def test_adopt_takes_it_out_and_says_so(host: SharedHost) -> None:
    host.apply(FIRST)
    theirs = intrude(host)
    adopted = host.sipfw(
        "apply", "--backend", host.backend, "--policy", host.policy(SECOND), "--adopt"
    )
    assert adopted.returncode == 0, adopted.stderr
    assert "taken out, though not made by sipfw: " in adopted.stderr
    # A map is nothing that an apply could mistake for its own.
    assert [text for text in theirs if text in holds(host)] in ([], ["map ways {"])


def test_a_set_of_our_name_and_another_type(host: SharedHost) -> None:
    if host.backend == "nftables":
        host.run("nft", "-f", "-", text=MINE)
    else:
        host.run("ipset", "create", "sipfw-banned4", "hash:net")
    before = listed(host)
    words = ("apply", "--backend", host.backend, "--policy", host.policy(FIRST))
    refused = host.sipfw(*words)
    assert refused.returncode == 4
    assert "not made by sipfw: set " in refused.stderr
    assert host.sipfw("remove").returncode == 0
    assert listed(host) == before


MINE = "table inet sipfw { set banned4 { type inet_service; }; }"


def test_a_rule_in_our_chain_goes_with_a_word(host: SharedHost) -> None:
    host.apply(FIRST)
    if host.backend == "nftables":
        host.run("nft", "add rule inet sipfw SIP_TRUSTED4 ip saddr 198.51.100.9 accept")
    else:
        rule = "-t raw -A SIP_TRUSTED -s 198.51.100.9 -j ACCEPT"
        host.tool("iptables", *rule.split())
    assert "198.51.100.9" in host.sipfw("verify").stdout
    done = host.sipfw("apply", "--backend", host.backend, "--policy", host.policy(SECOND))
    assert done.returncode == 0, done.stderr
    assert "taken out of chains of sipfw's" in done.stderr
    assert "198.51.100.9" in done.stderr


def test_rules_that_were_flushed_are_no_stranger(host: SharedHost) -> None:
    host.apply(FIRST)
    if host.backend == "nftables":
        host.run("nft", "flush", "table", "inet", "sipfw")
    else:
        for command in ("iptables", "ip6tables"):
            for table in ("raw", "filter"):
                host.tool(command, "-t", table, "-F")
    host.apply(SECOND)
    assert host.sipfw("verify").returncode == 0
    host.must("remove")
    assert "sipfw" not in host.everything()
