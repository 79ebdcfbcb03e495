"""What every compiled policy has in common, whatever profile and switch it came from."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import ip_network
from itertools import chain as chained
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler import names
from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import all_rules, lower
from sipfw.lower.naming import MAX_SET_NAME
from sipfw.policy.load import Request, load, shipped_profiles, shipped_switches
from sipfw.ruleset.lint import lint
from sipfw.ruleset.match import Direction, InSet, L4Proto, Match, PayloadAt, PayloadContains, Ports
from sipfw.ruleset.model import Layer
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Done, Drop, Goto, Jump, Rule, UpdateSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sipfw.ruleset.model import Chain, Ruleset

_TRUSTED_SETS = {
    names.SET_TRUSTED,
    names.SET_TRUSTED_TIERS,
    names.SET_TRUSTED_UDP,
    names.SET_TRUSTED_TCP,
    names.SET_TRUSTED_TLS,
    names.SET_TRUSTED_PORTS,
    names.SET_TRUSTED_TLS_PORTS,
}

_PEERS = """\
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: plain, signalling: [203.0.113.10, '2001:db8:5::/64'], tier: large}
  - {name: udp, signalling: [203.0.113.20], transports: [udp], tier: small}
  - {name: tcp, signalling: [203.0.113.30], transports: [tcp, tls]}
  - {name: port, signalling: [203.0.113.40], source_ports: [5060]}
  - {name: tls-port, signalling: [203.0.113.50], source_ports: [5061], transports: [wss]}
media: {notrack: true}
limits: {methods: {register: {rate: 1/second, burst: 5}, other: {rate: 1/second, burst: 5}}}
"""


def _compiled(
    tmp_path: Path | None = None,
    text: str = "",
    profile: str | None = None,
    switch: str | None = None,
) -> Ruleset:
    file = None
    if tmp_path is not None:
        file = tmp_path / "policy.yaml"
        file.write_text(text, encoding="utf-8")
    return compile_policy(load(Request(file, profile, switch)))


def _reached(ruleset: Ruleset, start: str) -> list[Chain]:
    """Return the chains that a packet in `start` can come to."""
    found: dict[str, Chain] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = ruleset.chain(name)
            waiting += [
                r.action.chain for r in found[name].rules if isinstance(r.action, Jump | Goto)
            ]
    return list(found.values())


def _rules(ruleset: Ruleset) -> Iterator[Rule]:
    return chained.from_iterable(chain.rules for chain in ruleset.chains)


@pytest.fixture(params=[*shipped_profiles()])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[None, *shipped_switches()])
def switch(request: pytest.FixtureRequest) -> str | None:
    return None if request.param is None else str(request.param)


def test_every_profile_on_every_switch(profile: str, switch: str | None, tmp_path: Path) -> None:
    for ruleset in (
        _compiled(profile=profile, switch=switch),
        _compiled(tmp_path, _PEERS, profile, switch),
    ):
        assert lint(ruleset) == []
        ids = [rule.id for rule in _rules(ruleset)]
        assert len(ids) == len(set(ids))
        assert all(rule.summary for rule in _rules(ruleset))
        for ipset in (True, False):
            lowered = list(all_rules(lower(ruleset, ipset=ipset)))
            marks = [
                (table.family, table.name, where, rule.comment) for table, where, rule in lowered
            ]
            assert len(marks) == len(set(marks))
            assert max(len(rule.comment) for _, _, rule in lowered) < 256  # XT_MAX_COMMENT_LEN
        assert all(len(f"{item.name}-new") <= MAX_SET_NAME for item in lower(ruleset).sets)


def test_a_trusted_peer_is_known_before_anything_can_drop_it(profile: str, tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS, profile, "asterisk")
    for name in (names.TRUSTED, names.ENCRYPTED):
        rules = ruleset.chain(name).rules
        lookups = [index for index, rule in enumerate(rules) if _asks_for_trust(rule)]
        others = [index for index, rule in enumerate(rules) if not _asks_for_trust(rule)]
        assert lookups
        assert max(lookups) < min(others)
        assert {rules[i].action for i in lookups} <= {Done(), Goto(names.TIERS)}
    prerouting = ruleset.chain(names.PREROUTING).rules
    assert not [rule for rule in prerouting if isinstance(rule.action, Drop)]


def _asks_for_trust(rule: Rule) -> bool:
    return any(isinstance(match, InSet) and match.set in _TRUSTED_SETS for match in rule.matches)


def test_a_trusted_peer_meets_nothing_but_its_tier(profile: str, tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS, profile)
    lookups = [rule for rule in ruleset.chain(names.TRUSTED).rules if _asks_for_trust(rule)]
    assert {rule.action for rule in lookups} == {Done(), Goto(names.TIERS)}
    chains = _reached(ruleset, names.TIERS)
    assert [chain.name for chain in chains] == [names.TIERS]
    drops = [rule for rule in chains[0].rules if isinstance(rule.action, Drop)]
    assert [rule.id for rule in drops] == ["trusted.tier-large", "trusted.tier-small"]
    without = _compiled(tmp_path, _PEERS.replace(", tier: large", "").replace(", tier: small", ""))
    lookups = [rule for rule in without.chain(names.TRUSTED).rules if _asks_for_trust(rule)]
    assert {rule.action for rule in lookups} == {Done()}


def test_every_kind_of_peer_is_looked_up_where_its_packets_come(tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS, switch="asterisk")
    asked = {
        name: [match.set for rule in ruleset.chain(name).rules for match in rule.matches
               if isinstance(match, InSet) and match.set in _TRUSTED_SETS]
        for name in (names.TRUSTED, names.ENCRYPTED)
    }  # fmt: skip
    assert asked == {
        names.TRUSTED: [
            "trusted-tiers",
            "trusted",
            "trusted-udp",
            "trusted-tcp",
            "trusted-ports",
        ],
        names.ENCRYPTED: ["trusted", "trusted-tiers", "trusted-tls", "trusted-tls-ports"],
    }
    members = {
        item.name: [str(x) for x in (*item.networks, *item.endpoints)]
        for item in ruleset.sets
        if item.name in _TRUSTED_SETS
    }
    assert members["trusted"] == []
    assert members["trusted-tiers"] == ["203.0.113.10/32", "2001:db8:5::/64"]
    assert members["trusted-udp"] == ["203.0.113.20/32"]
    assert members["trusted-tcp"] == members["trusted-tls"] == ["203.0.113.30/32"]
    assert len(members["trusted-ports"]) == 2
    assert len(members["trusted-tls-ports"]) == 2


def test_nobody_looks_for_a_set_that_is_not_made(profile: str, tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS, profile, "asterisk")
    made = {item.name for item in ruleset.sets}
    used = {
        match.set for rule in _rules(ruleset) for match in rule.matches if isinstance(match, InSet)
    }
    changed = {
        rule.action.set
        for rule in _rules(ruleset)
        if isinstance(rule.action, UpdateSet | AddOnce | DeleteFromSet)
    }
    assert made == used | changed


def test_where_unknown_sources_are_denied_nothing_is_learned(tmp_path: Path) -> None:
    text = _PEERS.replace("limits: {", "limits: {unknown_sources: denied, ")
    ruleset = _compiled(tmp_path, text, switch="asterisk")
    assert lint(ruleset) == []
    assert not [item.name for item in ruleset.sets if item.dynamic]
    chains = {chain.name for chain in ruleset.chains}
    assert not chains & {
        names.LEARNED, names.BANNED, names.SCANNER_BLOCK, names.RATE_LIMIT, names.RECENT,
        names.BAN, names.REPLIES, names.SUCCESS, names.LEARN, names.FAILURE,
    }  # fmt: skip
    for name in (names.TRUSTED, names.ENCRYPTED):
        last = ruleset.chain(name).rules[-1]
        assert (last.matches, last.action) == ((), Drop())


def test_ciphertext_is_never_searched(profile: str) -> None:
    """SIP_RATE_LIMIT serves plain SIP too: what it reads there is UDP, which TLS is not."""
    ruleset = _compiled(profile=profile, switch="asterisk")
    matches: list[Match] = [
        match
        for chain in _reached(ruleset, names.ENCRYPTED)
        for rule in chain.rules
        for match in rule.matches
    ]
    assert not [match for match in matches if isinstance(match, PayloadContains)]
    assert {match.proto for match in matches if isinstance(match, PayloadAt)} <= {L4Proto.UDP}


def test_the_costly_searches_stand_behind_the_aggregate_cap() -> None:
    ruleset = _compiled()
    searching = {
        chain.name
        for chain in _reached(ruleset, names.TRUSTED)
        if any(isinstance(m, PayloadContains) for rule in chain.rules for m in rule.matches)
    }
    assert searching == {names.SIGNATURES, names.BANNED}
    banned = [rule.id for rule in ruleset.chain(names.BANNED).rules]
    assert banned.index("banned.trickle") < banned.index("banned.login")
    ways = [
        rule
        for rule in _rules(ruleset)
        if isinstance(rule.action, Jump | Goto) and rule.action.chain == names.SIGNATURES
    ]
    assert [rule.id for rule in ways] == ["aggregate.within"]


def test_scanner_rules_never_ban() -> None:
    """A spoofer could write a customer's address into a scanner's packet."""
    ruleset = _compiled()
    scanners = [chain for chain in ruleset.chains if chain.layer is Layer.SCANNER]
    assert len(scanners) == 3
    for chain in scanners:
        assert not [rule for rule in chain.rules if isinstance(rule.action, UpdateSet)]


def test_only_bounded_rules_write_bans(profile: str) -> None:
    for rule in _rules(_compiled(profile=profile)):
        if rule.action in (
            UpdateSet(names.SET_BANNED),
            UpdateSet(names.SET_BANNED, Direction.DESTINATION),
        ):
            assert any(type(match).__name__ == "RateWithin" for match in rule.matches), rule.id


def test_no_failure_of_a_trusted_peer_is_counted(tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS)
    spared = {
        match.set
        for rule in ruleset.chain(names.FAILURE).rules
        if not isinstance(rule.action, AddOnce | UpdateSet)
        for match in rule.matches
        if isinstance(match, InSet)
    }
    assert {"trusted", "trusted-udp", "trusted-tcp", "trusted-ports"} <= spared


def test_every_origin_names_a_field_of_the_policy(tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS)
    for rule in _rules(ruleset):
        assert rule.origin.field, rule.id
        assert rule.origin.file
    peers = next(rule for rule in _rules(ruleset) if rule.id == "trusted.accept")
    assert str(peers.origin) == f"{tmp_path}/policy.yaml:2: trusted_peers"


def test_a_rule_keeps_its_comment_when_another_one_changes(tmp_path: Path) -> None:
    before = _comments(_compiled(tmp_path, "bans: {duration: 1h}\n"))
    after = _comments(_compiled(tmp_path, "limits: {hashlimit: {rate: 7/second}}\n"))
    changed = {item.partition("#")[0] for item in before ^ after}
    assert changed == {"sipfw:rate.hashlimit"}


def test_other_words_and_lines_change_no_comment(tmp_path: Path) -> None:
    before = _comments(_compiled(tmp_path, "bans: {duration: 2h}\n"))
    assert before == _comments(_compiled(tmp_path, "# a comment\n\nbans:\n  duration: 7200\n"))


def _comments(ruleset: Ruleset) -> set[str]:
    return {rule.comment for _, _, rule in all_rules(lower(ruleset))}


def test_the_order_of_peers_changes_nothing(tmp_path: Path) -> None:
    one = (
        "trusted_peers: [{name: a, signalling: [192.0.2.9]}, {name: b, signalling: [192.0.2.1]}]\n"
    )
    other = (
        "trusted_peers: [{name: b, signalling: [192.0.2.1]}, {name: a, signalling: [192.0.2.9]}]\n"
    )
    assert lower(_compiled(tmp_path, one)) == lower(_compiled(tmp_path, other))


def test_the_same_policy_gives_the_same_script_in_every_process(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(_PEERS, encoding="utf-8")
    arguments = ["render", "--policy", str(policy), "--root", str(tmp_path)]
    texts = {
        subprocess.run(
            [sys.executable, "-m", "sipfw", *arguments],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(texts) == 1


def test_resolved_names_become_members(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "trusted_peers: [{name: a, signalling: [sip.example.com, 192.0.2.1]}]\n", encoding="utf-8"
    )
    loaded = load(Request(file))
    assert [str(n) for n in compile_policy(loaded).set("trusted").networks] == ["192.0.2.1/32"]
    resolved = {"sip.example.com": (ip_network("192.0.2.7"), ip_network("2001:db8::7"))}
    assert [str(n) for n in compile_policy(loaded, resolved).set("trusted").networks] == [
        "192.0.2.1/32",
        "192.0.2.7/32",
        "2001:db8::7/128",
    ]


@pytest.mark.parametrize("ports", ["udp: [], tcp: []", "udp: [], tcp: [], tls: [5061]"])
def test_a_policy_without_plain_sip_is_sound_or_refused(ports: str, tmp_path: Path) -> None:
    assert lint(_compiled(tmp_path, f"signalling: {{{ports}}}\n")) == []


def test_notrack_without_media_ports_makes_no_rule(tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, "media: {ports: [], notrack: true}\n")
    ports = [
        match for rule in _rules(ruleset) for match in rule.matches if isinstance(match, Ports)
    ]
    assert all(match.ranges for match in ports)
