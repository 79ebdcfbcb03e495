"""Block lists in the ruleset: behind trusted, banned and learned sources, before the cap."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sipfw.compiler.pipeline import compile_policy
from sipfw.compiler.without_string_match import without_string_match
from sipfw.deploy.lists.sets import with_lists, without_lists
from sipfw.errors import Exit
from sipfw.feeds.parse import parse
from sipfw.lower import iptables, nftables
from sipfw.lower.naming import MAX_SET_NAME
from sipfw.policy.load import Request, load
from sipfw.policy.model import Policy
from sipfw.ruleset.addresses import IpProto
from sipfw.ruleset.codec import decode, encode
from sipfw.ruleset.lint import lint
from sipfw.ruleset.rule import Drop, Goto
from sipfw.simulate.evaluate import evaluate
from sipfw.simulate.packet import Packet

if TYPE_CHECKING:
    from conftest import Sipfw
    from sipfw.ruleset.model import Ruleset

FEEDS = {
    "signalling": {"udp": [5060], "tcp": [5060], "tls": [5061]},
    "trusted_peers": [{"name": "a", "signalling": ["203.0.113.10"]}],
    "feeds": [
        {"name": "first", "url": "https://lists.example/first.txt"},
        {"name": "sixteen-letters-", "file": "/etc/sipfw/second.txt", "expiry": "never"},
    ],
}
LISTS = {
    "first": (ip_network("203.0.113.0/28"), ip_network("203.0.113.99")),
    "sixteen-letters-": (ip_network("2001:db8:bad::/48"),),
}


def compiled(tmp_path: Path, policy: dict[str, Any], lists: Any = None) -> Ruleset:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    return compile_policy(load(Request(path)), None, lists)


@pytest.fixture
def ruleset(tmp_path: Path) -> Ruleset:
    return compiled(tmp_path, FEEDS, LISTS)


def ids(ruleset: Ruleset, chain: str) -> list[str]:
    return [rule.id for rule in ruleset.chain(chain).rules]


def test_the_rules_stand_behind_friends_and_before_the_cap(ruleset: Ruleset) -> None:
    assert lint(ruleset) == []
    order = ids(ruleset, "SIP_SOURCES")
    wanted = ["identity.banned", "identity.learned", "feeds.first", "feeds.sixteen-letters-"]
    assert order[:4] == wanted
    assert order[4:] == ["aggregate.looked-at", "aggregate.overlooked"]
    streams = ids(ruleset, "SIP_STREAMS")
    assert streams[:6] == [
        "streams.moved",
        "streams.banned",
        "streams.learned",
        "feeds.first.tcp",
        "feeds.sixteen-letters-.tcp",
        "streams.opening",
    ]
    # TCP and TLS come to the same place.
    for chain in ("SIP_TRUSTED", "SIP_ENCRYPTED"):
        assert ruleset.chain(chain).rules[-1].action == Goto("SIP_STREAMS")
    assert all(
        isinstance(rule.action, Drop)
        for chain in ruleset.chains
        for rule in chain.rules
        if rule.id.startswith("feeds.")
    )


def test_every_rule_names_the_policy_line(ruleset: Ruleset) -> None:
    origins = [str(r.origin) for c in ruleset.chains for r in c.rules if r.id == "feeds.first"]
    assert all(text.endswith(": feeds.first") for text in origins)
    assert all("policy.yaml:" in text for text in origins)


@pytest.mark.parametrize("lists", [{}, LISTS])
def test_the_rules_do_not_depend_on_what_is_listed(tmp_path: Path, lists: Any) -> None:
    plain = compiled(tmp_path, FEEDS)
    full = with_lists(plain, lists)
    assert iptables.lower(plain).tables == iptables.lower(full).tables
    assert nftables.lower(plain).chains == nftables.lower(full).chains
    names = [item.name for item in nftables.lower(full).sets]
    assert names == [item.name for item in nftables.lower(plain).sets]


def test_kernel_names_fit(ruleset: Ruleset) -> None:
    names = [item.name for item in iptables.lower(ruleset).sets]
    assert all(len(name) <= MAX_SET_NAME for name in names)
    assert "sipfw-feed-sixteen-letters-4" in names


def test_without_feeds_nothing_is_different(tmp_path: Path) -> None:
    policy = {key: value for key, value in FEEDS.items() if key != "feeds"}
    found = compiled(tmp_path, policy)
    assert not [r.id for c in found.chains for r in c.rules if r.id.startswith("feeds.")]
    assert not [item.name for item in found.sets if item.name.startswith("feed-")]


def test_where_strangers_are_denied_no_list_is_asked(tmp_path: Path) -> None:
    found = compiled(tmp_path, {**FEEDS, "limits": {"unknown_sources": "denied"}}, LISTS)
    assert lint(found) == []
    assert not [item.name for item in found.sets if item.name.startswith("feed-")]
    assert not [r.id for c in found.chains for r in c.rules if r.id.startswith("feeds.")]


def test_a_kernel_without_text_searches_keeps_the_lists(ruleset: Ruleset) -> None:
    assert "feeds.first" in ids(without_string_match(ruleset), "SIP_SOURCES")


def test_a_generation_keeps_the_sets_and_not_what_is_in_them(ruleset: Ruleset) -> None:
    kept = without_lists(ruleset)
    assert decode(encode(kept)) == kept
    assert kept.set("feed-first").networks == ()
    assert kept.set("trusted") == ruleset.set("trusted")
    assert with_lists(kept, LISTS) == ruleset


def test_the_policy_survives_its_way_through_a_file() -> None:
    policy = Policy.model_validate(FEEDS)
    again = Policy.model_validate(policy.model_dump(mode="json", by_alias=True))
    assert again == policy
    assert again.feeds[1].expiry is None


def sip(source: str, port: int = 5060) -> Packet:
    return Packet(
        ip_address(source),
        ip_address("192.0.2.1"),
        IpProto.UDP,
        5060,
        port,
        payload=b"REGISTER sip:x SIP/2.0\r\n",
    )


@pytest.mark.parametrize(
    ("source", "decider"),
    [
        ("203.0.113.3", "feeds.first"),
        ("203.0.113.99", "feeds.first"),
        ("203.0.113.10", None),
        ("198.51.100.1", None),
    ],
)
def test_the_walk_knows_lists(ruleset: Ruleset, source: str, decider: str | None) -> None:
    trace = evaluate(ruleset, sip(source))
    found = trace.decider.id if trace.dropped and trace.decider else None
    assert found == decider


def test_the_example_compiles_and_its_own_list_is_one() -> None:
    folder = Path(__file__).parents[2] / "examples" / "block-lists"
    loaded = load(Request(folder / "policy.yaml"))
    own = loaded.policy.feeds[-1]
    networks = parse((folder / "own-list.txt").read_bytes(), own)
    assert networks.left_out == ()
    assert len(networks.networks) == 3
    ruleset = compile_policy(loaded, None, {"own": networks.networks})
    assert lint(ruleset) == []
    assert ruleset.set("feed-own").networks == networks.networks


@pytest.mark.parametrize("port", [5060, 5061])
def test_the_walk_knows_lists_over_tcp_and_tls(ruleset: Ruleset, port: int) -> None:
    packet = replace(sip("203.0.113.3", port), protocol=IpProto.TCP, payload=None)
    trace = evaluate(ruleset, packet)
    assert trace.dropped
    assert trace.decider is not None
    assert trace.decider.id == "feeds.first.tcp"


def test_logged_lists_are_still_sound(tmp_path: Path) -> None:
    found = compiled(tmp_path, {**FEEDS, "logging": {"layers": ["scanner-block", "entry"]}}, LISTS)
    assert lint(found) == []
    assert "feeds.first" in ids(found, "SIP_SOURCES")


@pytest.mark.parametrize("command", ["render", "check"])
def test_a_host_without_ipset_is_told_by_line(
    command: str, sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("profile: default\nfeeds:\n  - {name: x, file: /x}\n")
    ran = sipfw(command, "--policy", "p.yaml", "--root", str(tmp_path), "--no-ipset")
    assert ran.code == Exit.POLICY
    assert "p.yaml:3: feeds.x: block lists are ipsets, and this firewall has none" in ran.stderr


def test_feeds_with_nothing_in_force_says_so(sipfw: Sipfw, tmp_path: Path) -> None:
    for words in ((), ("--json",)):
        ran = sipfw("feeds", "--root", str(tmp_path), *words)
        assert (ran.code, ran.stdout) == (Exit.BACKEND, "")
        assert ran.stderr == "no firewall of sipfw is in force; make one live: sipfw apply\n"


def test_a_script_for_another_host_has_an_empty_set_and_says_so(
    sipfw: Sipfw, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("profile: default\nfeeds:\n  - {name: x, file: /x}\n")
    ran = sipfw("render", "--policy", str(tmp_path / "p.yaml"), "--root", str(tmp_path))
    assert ran.code == Exit.CLEAN
    assert "feeds.x: there is no copy yet, so nothing is dropped by it" in ran.stderr
    assert "create sipfw-feed-x4 hash:net" in ran.stdout
    assert "add sipfw-feed-x4" not in ran.stdout
