"""What an nftables plan must not say, whatever the policy; the kernel's side is in netns/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sipfw.compare.expected import expect
from sipfw.compiler.pipeline import compile_policy
from sipfw.errors import BackendError
from sipfw.host.runner import Completed
from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.kernel.nft.reader import nft_live
from sipfw.kernel.nft.tool import NftListing, live_from_json
from sipfw.lower.nftables import lower
from sipfw.policy.load import LoadedPolicy, Request, load, shipped_profiles
from sipfw.policy.model import Tier, UnknownSources
from sipfw.render.nft import Existing, nft_text, transaction_text
from sipfw.ruleset.match import L4Proto, PayloadAt, Protocol
from sipfw.ruleset.model import SetKind
from sipfw.ruleset.rule import AddOnce, DeleteFromSet, Goto, Jump, UpdateSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sipfw.lower.nftables_plan import NftPlan
    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Rule

POLICY = """\
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, "2001:db8:5::/64"], tier: large}
  - {name: b, signalling: [198.51.100.7], source_ports: [5060, 5070]}
"""
# Only who is in a set already gets a bucket here, so strangers cannot fill it.
KNOWN_SOURCES = {
    "learn": "learned",
    "slogin": "learned",
    "plogin": "registered",
    "phone": "registered",
    "asked": "asked",
    "calls": "banned",
    "repea": "banned",
    "logins": "banned",
    "chall": "banned",
}
# Whoever forges ports of such a source can fill these. Full, they leave it to the buckets of the
# source behind them, and a tier's peer without its cap.
BY_PORT = ("callp", "loginp", "nlogin", *Tier)


def loaded(folder: Path, profile: str = "default", more: str = "") -> LoadedPolicy:
    file = folder / "policy.yaml"
    file.write_text(f"profile: {profile}\n{POLICY}{more}")
    return load(Request(file=file))


@pytest.fixture(params=shipped_profiles())
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> NftPlan:
    return lower(compile_policy(loaded(tmp_path, request.param)))


def test_nothing_stands_behind_a_change_of_a_set(plan: NftPlan) -> None:
    """A full set ends the rule, so a verdict in the same rule would not be reached."""
    changes = re.compile(r"^(add|update|delete) @\S+ \{ [^{}]+ \}$")
    actions = [rule.action for chain in plan.chains for rule in chain.rules if "@" in rule.action]
    assert [action for action in actions if not changes.match(action)] == []
    # As a condition it stands for a limit; without one it would always hold.
    matches = [rule.match for chain in plan.chains for rule in chain.rules]
    dynamic = [
        each for match in matches for each in re.findall(r"(?:add|update) @\S+ {.*?}", match)
    ]
    assert [each for each in dynamic if " over " not in each] == []


def test_learned_sets_hold_no_intervals(plan: NftPlan) -> None:
    """The kernel refuses both flags together, and one more interval of 100,000 takes a second."""
    for item in plan.sets:
        assert item.static or "interval" not in item.flags
        assert ("dynamic" in item.flags) != item.static


@pytest.mark.parametrize("profile", shipped_profiles())
def test_a_flood_cannot_fill_the_buckets(profile: str, tmp_path: Path) -> None:
    """A full bucket set limits nobody, so the cap on all strangers must keep it from filling."""
    policy = loaded(tmp_path, profile)
    aggregate = policy.policy.limits.aggregate
    assert aggregate is not None
    rate = aggregate.amount / aggregate.unit.seconds
    ruleset = compile_policy(policy)
    for item in lower(ruleset).sets:
        if not item.summary.startswith("buckets of ") or item.timeout is None:
            continue
        assert item.size is not None
        name = item.summary.removeprefix("buckets of ")
        if name in KNOWN_SOURCES:
            assert ruleset.set(KNOWN_SOURCES[name]).size <= item.size, item.name
        elif name not in BY_PORT:
            assert rate * (item.timeout + 1) <= item.size, item.name


# What strangers write at the rate of the cap on them all, and what would let them go on if full.
BY_STRANGERS = (
    *("pending", "ringing", "dialling", "logins", "bare", "wrong", "refused-calls", "shut"),
    *("challenges", "no-register", "unanswered"),
    *("failures", "barred", "streams", "stream-sources"),
)


@pytest.mark.parametrize("profile", shipped_profiles())
def test_a_flood_cannot_fill_what_awaits_a_judgement(profile: str, tmp_path: Path) -> None:
    policy = loaded(tmp_path, profile)
    aggregate = policy.policy.limits.aggregate
    assert aggregate is not None
    ruleset = compile_policy(policy)
    if policy.policy.limits.unknown_sources is UnknownSources.DENIED:
        assert {item.kind for item in ruleset.sets if item.dynamic} <= {SetKind.TARGET}
        return
    failures = policy.policy.learning.failures
    takes = {"dialling": 2, "shut": failures, "barred": failures, "no-register": failures}
    for name in BY_STRANGERS:
        item = ruleset.set(name)
        assert item.timeout is not None
        rate = aggregate.amount / aggregate.unit.seconds / takes.get(name, 1)
        assert rate * (item.timeout + 1) <= item.size, name
    # Only who is learned can be in it.
    assert ruleset.set("failures-learned").size == ruleset.set("learned").size


def test_udp_is_compared_behind_its_header(plan: NftPlan) -> None:
    """`@ih` needs kernel 5.16, so only TCP, whose header has no fixed length, may need it."""
    for chain in plan.chains:
        for rule in chain.rules:
            if "@ih," in rule.match:
                assert "tcp" in rule.match
            if "@th," in rule.match and "udp" not in rule.match:
                # A TCP acknowledgment number may look like a word, where nothing is decided yet.
                assert not rule.counted
                between, last = chain.rules[chain.rules.index(rule) + 1 : -1], chain.rules[-1]
                assert all(
                    each.match.startswith("meta l4proto udp") or BARE.match(each.match)
                    for each in between
                )
                assert last.match == ""


BARE = re.compile(r"@th,64,32 (0x[0-9a-f]{8}|\{ 0x[0-9a-f, x]+ \})$")


@pytest.mark.parametrize("profile", shipped_profiles())
def test_a_segment_taken_for_a_datagram_writes_nothing_about_streams(
    profile: str, tmp_path: Path
) -> None:
    """Whoever forges one chooses its acknowledgment, and would have a victim's logins judged."""
    policy = loaded(tmp_path, profile)
    ruleset = compile_policy(policy)
    mistaken = ("SIP_SOURCES", "SIP_ANSWERS", "SIP_SCANNER_BLOCK")
    found = datagram_writes(ruleset, [name for name in mistaken if has_chain(ruleset, name)])
    denied = policy.policy.limits.unknown_sources is UnknownSources.DENIED
    written = {name for _, name in found}
    assert written >= (set() if denied else {"pending", "logins", "ringing", "tried"})
    for rule, name in found:
        item = ruleset.set(name)
        assert item.name not in {"banned-tcp", "learned", "callers"}, rule.id
        if item.kind is SetKind.ENDPOINT:
            asked = rule.matches[0]
            assert isinstance(asked, Protocol | PayloadAt), rule.id
            assert asked.proto is L4Proto.UDP, rule.id


def has_chain(ruleset: Ruleset, name: str) -> bool:
    return any(chain.name == name for chain in ruleset.chains)


def datagram_writes(ruleset: Ruleset, waiting: list[str]) -> list[tuple[Rule, str]]:
    """Return the rules that a packet can come to from these chains, and the set they write."""
    seen: set[str] = set()
    found = []
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for rule in ruleset.chain(name).rules:
            if isinstance(rule.action, Goto | Jump):
                waiting.append(rule.action.chain)
            if isinstance(rule.action, UpdateSet | AddOnce | DeleteFromSet):
                found.append((rule, rule.action.set))
    return found


# All that is left, a family's packets to our ports, or all that starts with a word.
WAY_ON = re.compile(
    r"|(th dport (\d+|\{ [\d, ]+ \}) )?meta nfproto ipv[46]"
    r"|((meta l4proto udp )?@th,64,32|meta l4proto tcp @ih,0,32) (0x[0-9a-f]{8}|\{ [0-9a-fx, ]+ \})"
)


def test_only_ways_on_go_uncounted(plan: NftPlan) -> None:
    uncounted = [rule for chain in plan.chains for rule in chain.rules if not rule.counted]
    for rule in uncounted:
        assert rule.action.startswith(("goto ", "jump "))
        assert WAY_ON.fullmatch(rule.match)
    hooks = [rule for chain in plan.chains if chain.base is not None for rule in chain.rules]
    assert [rule for rule in hooks if rule not in uncounted] == []
    text = transaction_text(plan, Existing())
    assert not [line for line in text.splitlines() if "hook." in line and "counter" in line]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", "th dport 5060 "),
        (
            "signalling: {udp: [5060, 5070], tcp: [5060], tls: [5061]}\n",
            "th dport { 5060, 5061, 5070 } ",
        ),
        ("media: {notrack: true}\n", ""),
    ],
)
def test_only_packets_to_ports_of_the_chain_enter_it(
    more: str, expected: str, tmp_path: Path
) -> None:
    chains = lower(compile_policy(loaded(tmp_path, more=more))).chains
    (hook,) = [chain for chain in chains if chain.name == "raw_prerouting"]
    assert [rule.match for rule in hook.rules] == [
        f"{expected}meta nfproto {family}" for family in ("ipv4", "ipv6")
    ]


def test_a_rule_without_a_counter_has_counted_nothing_that_can_be_shown() -> None:
    comment = "sipfw:trusted.others#00000000"
    shown = {"family": "inet", "table": "sipfw", "chain": "SIP_TRUSTED4", "comment": comment}
    goto = {"goto": {"target": "SIP_SOURCES4"}}
    counter = {"counter": {"packets": 0, "bytes": 0}}
    objects = [
        {"chain": {"family": "inet", "table": "sipfw", "name": "SIP_TRUSTED4"}},
        {"rule": {**shown, "expr": [goto]}},
        {"rule": {**shown, "expr": [counter, goto]}},
    ]
    bare, counted = live_from_json(objects).chains["SIP_TRUSTED4"].rules
    assert (bare.counted, counted.counted) == (False, True)


def test_every_word_is_known_to_nft_1_0_6(plan: NftPlan) -> None:
    for text in (nft_text(plan), transaction_text(plan, Existing(chains=("x",)))):
        words = {line.split()[0] for line in text.splitlines() if line.strip()}
        assert not words & {"destroy", "reset", "replace"}
        assert not re.search(r"^\s*chain \S+ \{[^#\n]*\}", text, re.MULTILINE)
        assert not re.search(r"\blast\b", text.replace('comment "', '"').partition("{")[2])


def test_comments_and_names_fit(plan: NftPlan) -> None:
    comments = [rule.comment for chain in plan.chains for rule in chain.rules]
    comments += [rule.comment for chain in plan.texts for rule in chain.rules]
    assert max(map(len, comments)) <= 128
    names = [item.name for item in plan.sets]
    names += [chain.name for chain in plan.chains]
    names += [chain.name for chain in plan.texts]
    assert max(map(len, names)) < 128
    assert len(set(names)) == len(names)


def test_another_limit_has_another_set(tmp_path: Path) -> None:
    """An element keeps the limit it was made with, so an old set would keep the old rate."""

    def buckets(rate: str) -> set[str]:
        policy = loaded(tmp_path, more=f"limits: {{per_source: {{rate: {rate}, burst: 9}}}}\n")
        sets = lower(compile_policy(policy)).sets
        return {item.name for item in sets if item.summary == "buckets of source"}

    assert len(buckets("5/second")) == 2
    assert buckets("5/second") == buckets("5/second")
    assert not buckets("5/second") & buckets("6/second")


def base_chain(*comments: str | None, hook: str = "prerouting", prio: int = -300) -> NftListing:
    """Return raw_prerouting as nft lists it, with a rule for each comment."""
    place = {"name": "raw_prerouting", "type": "filter", "hook": hook, "prio": prio}
    rules = [
        {"chain": "raw_prerouting", "expr": [{"accept": None}], **({"comment": c} if c else {})}
        for c in comments
    ]
    return live_from_json(
        [{"chain": {**place, "policy": "accept"}}, *({"rule": each} for each in rules)]
    )


def jumps(listing: NftListing) -> list[tuple[str, str, str | None]]:
    return [(jump.family, jump.hook, jump.rule.rule_id) for jump in nft_live(listing).jumps]


def test_each_hook_rule_belongs_to_its_family(plan: NftPlan, tmp_path: Path) -> None:
    (chain,) = [chain for chain in plan.chains if chain.name == "raw_prerouting"]
    first, second = (rule.comment for rule in chain.rules)
    names = ("hook.raw.prerouting/1", "hook.raw.prerouting/2")
    expected = [("ip", "raw_prerouting", names[0]), ("ip6", "raw_prerouting", names[1])]
    assert jumps(base_chain(first, second)) == expected
    ruleset = compile_policy(loaded(tmp_path))
    wanted = expect(ruleset, lower(ruleset)).jumps
    found = [(jump.family, jump.hook, jump.rule.id) for jump in wanted if "raw_pre" in jump.hook]
    assert found == expected


def test_a_rule_of_somebody_else_stands_before_both_families() -> None:
    first, second = (f"sipfw:hook.raw.prerouting/{number}#00000000" for number in (1, 2))
    found = nft_live(base_chain(None, first, second)).jumps
    assert [(each.family, each.rule.rule_id, len(each.before)) for each in found] == [
        ("ip", None, 0),
        ("ip", "hook.raw.prerouting/1", 1),
        ("ip6", None, 0),
        ("ip6", "hook.raw.prerouting/2", 1),
    ]


def test_a_rule_of_an_older_version_is_for_both_families() -> None:
    old = "sipfw:hook.raw.prerouting#00000000"
    assert [family for family, *_ in jumps(base_chain(old))] == ["ip", "ip6"]


def test_a_base_chain_at_another_place_says_so() -> None:
    mark = "sipfw:hook.raw.prerouting/1#00000000"
    line = "type filter hook input priority -5; policy accept;"
    (found,) = jumps(base_chain(mark, hook="input", prio=-5))
    assert found[1] == f"raw_prerouting ({line})"


@dataclass
class OneAnswer:
    """A host whose nft says one thing."""

    answer: Completed

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        del argv, stdin, timeout, env
        return self.answer


@pytest.mark.parametrize(
    ("version", "fits"), [("1.0.5", False), ("0.9.9", False), ("1.0.6", True), ("1.1.3", True)]
)
def test_an_old_nft_is_refused_by_name(version: str, *, fits: bool) -> None:
    backend = NftablesBackend(OneAnswer(Completed(0, f"nftables v{version} (Name #1)\n", "")))
    if fits:
        backend.require()
    else:
        with pytest.raises(BackendError, match=f"nft {version} is too old; 1.0.6 or newer"):
            backend.require()


# NFT_JUMP_STACK_SIZE in net/netfilter/nf_tables_core.c: a longer way is refused as too many links.
JUMP_STACK = 16
DEEPEST = """\
logging: {layers: [entry, trusted, learned, banned, scanner-block, rate-limit, media, host]}
limits: {methods: {other: {rate: 10/second, burst: 10}}}
media: {sources: expected}
signalling: {behind: [docker0]}
tiers: {enforce: true}
"""


def test_no_way_through_the_chains_is_too_long_for_the_kernel(tmp_path: Path) -> None:
    plan = lower(compile_policy(loaded(tmp_path, "retail", DEEPEST)))
    leads = re.compile(r"(?:goto|jump) (\S+)")
    ways = {
        chain.name: set(leads.findall(" ".join(rule.action for rule in chain.rules)))
        for chain in plan.chains
    }
    for texts in plan.texts:
        ways[texts.name] = {
            rule.verdict.chain for rule in texts.rules if not isinstance(rule.verdict, str)
        }

    def depth(name: str) -> int:
        return 1 + max((depth(each) for each in ways[name]), default=0)

    assert max(map(depth, ways)) <= JUMP_STACK
