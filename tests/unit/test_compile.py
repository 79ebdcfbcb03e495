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
from sipfw.ruleset.lint import back_from_text, lint
from sipfw.ruleset.match import (
    ONE_ADDRESS,
    ConnectionsAbove,
    CountAbove,
    Direction,
    InSet,
    L4Proto,
    Match,
    PayloadAt,
    PayloadContains,
    Ports,
    Protocol,
    RateAbove,
    StartsWithOneOf,
    VolumeAbove,
)
from sipfw.ruleset.model import Layer, SetKind
from sipfw.ruleset.rule import (
    Accept,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Goto,
    Jump,
    Record,
    Rule,
    UpdateSet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
_ENFORCED = "tiers: {enforce: true}\n"


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


def _reached(
    ruleset: Ruleset, start: str, without: Callable[[Rule], bool] = lambda _rule: False
) -> list[Chain]:
    """Return the chains that a packet in `start` can come to, unless it meets such a rule."""
    found: dict[str, Chain] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = ruleset.chain(name)
            waiting += [
                r.action.chain
                for r in found[name].rules
                if isinstance(r.action, Jump | Goto) and not without(r)
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
        assert list(back_from_text(ruleset)) == []
        ids = [rule.id for rule in _rules(ruleset)]
        assert len(ids) == len(set(ids))
        assert all(rule.summary for rule in _rules(ruleset))
        plans = [lower(ruleset, ipset=ipset) for ipset in (True, False)]
        for plan in plans:
            lowered = list(all_rules(plan))
            marks = [
                (table.family, table.name, where, rule.comment) for table, where, rule in lowered
            ]
            assert len(marks) == len(set(marks))
            assert max(len(rule.comment) for _, _, rule in lowered) < 256  # XT_MAX_COMMENT_LEN
        assert all(len(f"{item.name}-new") <= MAX_SET_NAME for item in plans[0].sets)


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
    ruleset = _compiled(tmp_path, _PEERS + _ENFORCED, profile)
    lookups = [rule for rule in ruleset.chain(names.TRUSTED).rules if _asks_for_trust(rule)]
    assert {rule.action for rule in lookups} == {Done(), Goto(names.TIERS)}
    chains = _reached(ruleset, names.TIERS)
    assert [chain.name for chain in chains] == [names.TIERS]
    drops = [rule for rule in chains[0].rules if isinstance(rule.action, Drop)]
    assert [rule.id for rule in drops] == ["trusted.tier-large", "trusted.tier-small"]
    capped = next(match for match in drops[0].matches if isinstance(match, RateAbove))
    # What is forged from other ports of the peer uses up nothing of it.
    assert (capped.prefix, capped.with_port) == (ONE_ADDRESS, True)
    unnamed = _PEERS.replace(", tier: large", "").replace(", tier: small", "")
    for text in (unnamed + _ENFORCED, unnamed, _PEERS):
        without = _compiled(tmp_path, text)
        lookups = [rule for rule in without.chain(names.TRUSTED).rules if _asks_for_trust(rule)]
        assert {rule.action for rule in lookups} == {Done()}
        assert names.TIERS not in {chain.name for chain in without.chains}
        assert not [item.name for item in without.sets if "tier" in item.name]


def test_every_kind_of_peer_is_looked_up_where_its_packets_come(tmp_path: Path) -> None:
    everybody = _asked_for_trust(tmp_path, _PEERS)
    assert everybody == {
        names.TRUSTED: ["trusted", "trusted-udp", "trusted-tcp", "trusted-ports"],
        names.ENCRYPTED: ["trusted", "trusted-tls", "trusted-tls-ports"],
        names.STREAM: ["trusted", "trusted-tcp", "trusted-ports"],
        names.STREAM_ENCRYPTED: ["trusted", "trusted-tls", "trusted-tls-ports"],
    }
    assert _compiled(tmp_path, _PEERS).set("trusted").networks == (
        ip_network("203.0.113.10"),
        ip_network("2001:db8:5::/64"),
    )
    ruleset = _compiled(tmp_path, _PEERS + _ENFORCED, switch="asterisk")
    assert _asked_for_trust(tmp_path, _PEERS + _ENFORCED) == {
        names.TRUSTED: [
            "trusted-tiers",
            "trusted",
            "trusted-udp",
            "trusted-tcp",
            "trusted-ports",
        ],
        names.ENCRYPTED: ["trusted", "trusted-tiers", "trusted-tls", "trusted-tls-ports"],
        names.STREAM: ["trusted-tiers", "trusted", "trusted-tcp", "trusted-ports"],
        names.STREAM_ENCRYPTED: ["trusted-tiers", "trusted", "trusted-tls", "trusted-tls-ports"],
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


def _asked_for_trust(tmp_path: Path, text: str) -> dict[str, list[str]]:
    ruleset = _compiled(tmp_path, text, switch="asterisk")
    return {
        name: [
            match.set
            for rule in ruleset.chain(name).rules
            for match in rule.matches
            if isinstance(match, InSet) and match.set in _TRUSTED_SETS
        ]
        for name in (names.TRUSTED, names.ENCRYPTED, names.STREAM, names.STREAM_ENCRYPTED)
    }


@pytest.mark.parametrize("more", ["", "tiers: {enforce: true}\n"])
def test_nobody_looks_for_a_set_that_is_not_made(profile: str, more: str, tmp_path: Path) -> None:
    ruleset = _compiled(tmp_path, _PEERS + more, profile, "asterisk")
    made = {item.name for item in ruleset.sets}
    used = {
        match.set
        for rule in _rules(ruleset)
        for match in rule.matches
        if isinstance(match, InSet | CountAbove | VolumeAbove)
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
    assert {item.kind for item in ruleset.sets if item.dynamic} == {SetKind.TARGET}
    assert {chain.name for chain in ruleset.chains} == {
        *(names.PREROUTING, names.TRUSTED, names.ENCRYPTED),
        *(names.OUTPUT, names.INPUT, names.HOST, names.LOST),
    }
    for name in (names.TRUSTED, names.ENCRYPTED):
        last = ruleset.chain(name).rules[-1]
        assert (last.matches, last.action) == ((), Drop())


def test_ciphertext_is_never_searched(profile: str) -> None:
    ruleset = _compiled(profile=profile, switch="asterisk")
    ways = [names.ENCRYPTED]
    if names.STREAMS in {chain.name for chain in ruleset.chains}:
        ways.append(names.STREAM_ENCRYPTED)
    matches: list[Match] = [
        match
        for way in ways
        for chain in _reached(ruleset, way)
        for rule in chain.rules
        for match in rule.matches
    ]
    assert matches
    reading = (PayloadContains, PayloadAt, StartsWithOneOf)
    assert not [match for match in matches if isinstance(match, reading)]


def test_the_costly_searches_stand_behind_the_aggregate_cap() -> None:
    ruleset = _compiled()
    whole = _reached(ruleset, names.TRUSTED)
    assert len([chain for chain in whole if _searches(chain)]) > 5
    # Neither within the cap, nor known to the switch.
    above = _reached(ruleset, names.TRUSTED, without=_within_cap_or_known)
    assert names.SOURCES in {chain.name for chain in above}
    assert [chain.name for chain in above if _searches(chain)] == []
    ways = [
        rule.id
        for rule in _rules(ruleset)
        if isinstance(rule.action, Jump | Goto) and rule.action.chain == names.SIGNATURES
    ]
    # Above the cap: whom the switch has challenged, who logged in before, and four bounded lanes.
    lanes = ["challenged", "later", "third", "second"]
    above = [f"aggregate.{name}" for name in ("former", "within", *lanes)]
    assert ways == ["scanner.caller", "callers.others", *above]


def test_banned_sources_are_searched_for_credentials_alone() -> None:
    """One search of a REGISTER tells a guess from what guesses nothing."""
    ruleset = _compiled()
    banned = _reached(ruleset, names.BANNED, without=_asks_registered)
    found = [
        (rule.id, match.pattern)
        for chain in banned
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, PayloadContains)
    ]
    credentials = b"Authorization"
    assert found == [("banned.login", credentials), ("port.login", credentials)]
    first, *_ = ruleset.chain(names.BANNED).rules
    assert (first.id, first.action) == ("banned.registered", Goto(names.REGISTERED))


def _searches(chain: Chain) -> bool:
    return any(isinstance(m, PayloadContains) for rule in chain.rules for m in rule.matches)


def _asks_registered(rule: Rule) -> bool:
    return InSet(names.SET_REGISTERED) in rule.matches


def _within_cap_or_known(rule: Rule) -> bool:
    known = {names.SET_LEARNED, names.SET_CALLERS, names.SET_REGISTERED, names.SET_BANNED}
    known |= {names.SET_ASKED, names.SET_FORMER}
    asked = {match.set for match in rule.matches if isinstance(match, InSet)}
    lanes = ("aggregate.within", "aggregate.second", "aggregate.third", "aggregate.later")
    return rule.id in (*lanes, "aggregate.challenged") or bool(asked & known)


def test_scanner_rules_never_ban() -> None:
    """A spoofer could write a customer's address into a scanner's packet."""
    ruleset = _compiled()
    scanners = [chain for chain in ruleset.chains if chain.layer is Layer.SCANNER]
    assert {chain.name for chain in scanners} == {
        *(names.ANSWERS, names.SCANNER_BLOCK, names.SOURCES, names.SIGNATURES, names.TEXTS),
        names.CALLERS,
        *(names.ECHO, names.ECHO_METHODS, names.ECHO_REGISTER, names.ECHO_INVITE),
    }
    writing = (UpdateSet, AddOnce, DeleteFromSet, Record)
    for chain in scanners:
        assert not [rule for rule in chain.rules if isinstance(rule.action, writing)]


def test_only_bounded_rules_write_bans(profile: str) -> None:
    for rule in _rules(_compiled(profile=profile)):
        if rule.action in {
            UpdateSet(name, direction)
            for name in (names.SET_BANNED, names.SET_BANNED_TCP)
            for direction in Direction
        }:
            assert any(type(match).__name__ == "RateWithin" for match in rule.matches), rule.id


def test_only_streams_and_their_connections_write_bans_for_streams() -> None:
    """Whatever raw sees can be forged, a SYN, too."""
    ruleset = _compiled()
    ways = [rule for rule in _rules(ruleset) if rule.action in (
        UpdateSet(names.SET_BANNED_TCP), UpdateSet(names.SET_BANNED_TCP, Direction.DESTINATION)
    )]  # fmt: skip
    assert [rule.id for rule in ways] == ["ban.stream"]
    assert ways[0].matches[0] == Protocol(L4Proto.TCP)
    # In a rush a SYN is noted, so that its repetition may come in: no harm to anybody in peace.
    rush = {f"{name}_TCP" for name in (names.CROWD, names.NEWCOMERS, names.RETURNING)}
    reached = [chain for chain in _reached(ruleset, names.STREAMS) if chain.name not in rush]
    assert len(reached) > 2
    syns = [rule for chain in reached for rule in chain.rules]
    writing = (UpdateSet, AddOnce, DeleteFromSet, Record)
    assert [rule.id for rule in syns if isinstance(rule.action, writing)] == []
    own = [m for rule in syns for m in rule.matches if isinstance(m, RateAbove | ConnectionsAbove)]
    assert own == [], "a limit of one source, which a forged SYN would use up"


@pytest.mark.parametrize("more", ["", "tiers: {enforce: true}\n"])
@pytest.mark.parametrize("chain", [names.FAILURE, names.WRONG, names.UNANSWERED])
def test_no_failure_of_a_trusted_peer_is_counted(tmp_path: Path, chain: str, more: str) -> None:
    ruleset = _compiled(tmp_path, _PEERS + more)
    rules = ruleset.chain(chain).rules
    counts = next(n for n, rule in enumerate(rules) if isinstance(rule.action, AddOnce | Goto))
    before = rules[:counts]
    assert {type(rule.action) for rule in before} <= {Done, DeleteFromSet}
    spared = {match.set for rule in before for match in rule.matches if isinstance(match, InSet)}
    tiers = {"trusted-tiers"} if more else set()
    assert spared == tiers | {
        *("trusted", "trusted-udp", "trusted-tcp", "trusted-ports"),
        *("trusted-tls", "trusted-tls-ports"),
    }


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


@pytest.mark.parametrize("profile", shipped_profiles())
@pytest.mark.parametrize("text", ["bans: {duration: 1h}\n", "admin: {networks: [192.0.2.0/28]}\n"])
def test_nothing_is_accepted_over_the_heads_of_others(
    text: str, profile: str, tmp_path: Path
) -> None:
    actions = {
        type(rule.action)
        for chain in _compiled(tmp_path, text, profile).chains
        for rule in chain.rules
    }
    assert Done in actions
    assert Accept not in actions
