"""What an nftables plan must not say, whatever the policy; the kernel's side is in netns/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sipfw.backends.nft_tool import NftListing, live_from_json
from sipfw.backends.nftables import NftablesBackend
from sipfw.backends.nftables_reader import nft_live
from sipfw.backends.runner import Completed
from sipfw.compiler.pipeline import compile_policy
from sipfw.compiler.textless import textless
from sipfw.deploy.targets import NftablesTarget, Options
from sipfw.errors import BackendError
from sipfw.lower.naming import base_id
from sipfw.lower.nftables import lower
from sipfw.policy.load import LoadedPolicy, Request, load, shipped_profiles
from sipfw.policy.model import Tier
from sipfw.render.nft import Existing, nft_text, transaction_text
from sipfw.ruleset.lint import lint
from sipfw.verify.expectation_nft import expect_nft

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sipfw.lower.nftables_plan import NftPlan, NftRule

POLICY = """\
admin: {networks: [192.0.2.0/28]}
trusted_peers:
  - {name: a, signalling: [203.0.113.10, "2001:db8:5::/64"], tier: large}
  - {name: b, signalling: [198.51.100.7], source_ports: [5060, 5070]}
"""
# Only sources that are in a set already get a bucket here, so strangers cannot fill it.
KNOWN_SOURCES = ("learn", "trickle", "logins", "loginp", *Tier)


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
    for item in lower(compile_policy(policy)).sets:
        if not item.summary.startswith("buckets of ") or item.timeout is None:
            continue
        if item.summary.removeprefix("buckets of ") not in KNOWN_SOURCES:
            assert item.size is not None
            assert rate * (item.timeout + 1) <= item.size, item.name


def test_udp_is_compared_behind_its_header(plan: NftPlan) -> None:
    """`@ih` needs kernel 5.16, so only TCP, whose header has no fixed length, may need it."""
    for chain in plan.chains:
        for rule in chain.rules:
            if "@ih," in rule.match:
                assert "tcp" in rule.match
            if "@th," in rule.match and "udp" not in rule.match:
                # A TCP acknowledgment number may look like a word, where it makes no difference.
                between, last = chain.rules[chain.rules.index(rule) + 1 : -1], chain.rules[-1]
                assert all(each.match == "meta l4proto udp" for each in between)
                assert (last.match, last.action) == ("", rule.action)


def test_only_ways_on_go_uncounted(plan: NftPlan) -> None:
    uncounted = [rule for chain in plan.chains for rule in chain.rules if not rule.counted]
    for rule in uncounted:
        assert rule.action.startswith(("goto ", "jump "))
        assert re.search(r"^$|^(th dport \S+ )?meta nfproto ipv[46]$|^@th,64,32 {", rule.match)
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


LACKS = ["the kernel has no nft_compat", "the kernel has no xt_string"]
# What a reply's text teaches, and what waits for that.
TAUGHT_CHAINS = {"LEARNED", "GUESSES", "REPLIES", "SUCCESS", "LEARN", "REFUSED", "FAILURE"}
TAUGHT_SETS = {"learned", "pending", "failures", "learn", "trickle", "logins", "loginp"}
TAUGHT_RULES = {
    "connections.learned",
    "encrypted.learned",
    "scanner.learned",
    "identity.learned",
    "rate.pending-register",
    "rate.pending-invite",
    "rate.pending-tcp",
    "replies.udp",
    "replies.tcp",
    "host.media-learned",
}
EVERY_PORT = "signalling: {udp: [5060], tcp: [5060], tls: [5061]}\n"


def without_searches(monkeypatch: pytest.MonkeyPatch, lack: str = LACKS[0]) -> NftablesTarget:
    monkeypatch.setattr(NftablesBackend, "text_searches", lambda _self: lack)
    return NftablesTarget()


def rule_id(rule: NftRule) -> str:
    return base_id(rule.comment.removeprefix("sipfw:").partition("#")[0])


@pytest.mark.parametrize("lack", LACKS)
def test_a_missing_string_match_is_told_and_takes_only_what_rests_on_it(
    lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruleset = compile_policy(loaded(tmp_path, "maximum", EVERY_PORT))
    possible, (warning,) = without_searches(monkeypatch, lack)._possible(ruleset)
    assert f"no text searches on this kernel ({lack})" in str(warning)
    whole, found = lower(ruleset), lower(possible)
    assert whole.texts
    assert found.texts == ()
    kept = [chain for chain in whole.chains if chain.name[4:-1] not in TAUGHT_CHAINS]
    for bare, full in zip(found.chains, kept, strict=True):
        if full.base is not None:
            # The ports on which a hook leads on are those of the rules that are left.
            assert [rule_id(each) for each in bare.rules] == [rule_id(each) for each in full.rules]
            continue
        if full.name.startswith("SIP_BANNED"):
            (wall,) = bare.rules
            assert (rule_id(wall), wall.match, wall.action) == ("banned.drop", "", "drop")
            continue
        lost = [rule for rule in full.rules if rule not in bare.rules]
        assert bare.rules == tuple(rule for rule in full.rules if rule not in lost)
        assert {rule_id(each) for each in lost if "_text_" not in each.action} <= TAUGHT_RULES
    assert found.sets == tuple(
        item for item in whole.sets if item.name.partition("-")[0].rstrip("46") not in TAUGHT_SETS
    )


@pytest.mark.parametrize("profile", shipped_profiles())
def test_what_is_left_without_searches_is_sound(profile: str, tmp_path: Path) -> None:
    assert lint(textless(compile_policy(loaded(tmp_path, profile, EVERY_PORT)))) == []


def test_without_searches_the_expectation_is_that_of_the_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruleset = compile_policy(loaded(tmp_path))
    bare = textless(ruleset)
    chosen = without_searches(monkeypatch)
    assert chosen.expectation(ruleset) == expect_nft(bare, lower(bare))
    (wall,) = next(c.rules for c in chosen.expectation(ruleset).chains if c.name == "SIP_BANNED")
    assert wall.summary == "banned source"


def test_a_check_returns_what_the_apply_would_warn_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[NftPlan] = []
    monkeypatch.setattr(NftablesBackend, "check", lambda _self, plan: checked.append(plan))
    ruleset = compile_policy(loaded(tmp_path))
    (warning,) = without_searches(monkeypatch).check(ruleset, Options())
    assert LACKS[0] in str(warning)
    assert checked == [lower(textless(ruleset))]


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
    wanted = expect_nft(ruleset, lower(ruleset)).jumps
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
