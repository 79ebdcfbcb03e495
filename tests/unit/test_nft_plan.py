"""What an nftables plan must not say, whatever the policy; the kernel's side is in netns/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sipfw.backends.nftables import NftablesBackend
from sipfw.backends.runner import Completed
from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.targets import NftablesTarget
from sipfw.errors import BackendError
from sipfw.lower.nftables import NftPlan, lower
from sipfw.policy.load import LoadedPolicy, Request, load, shipped_profiles
from sipfw.policy.model import Tier
from sipfw.render.nft import Existing, nft_text, transaction_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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


def flooded(profile: str) -> object:
    fills = profile in {"call-center", "retail"}
    reason = "2,000 new sources a second fill 65,536 buckets before the first is forgotten"
    return pytest.param(profile, marks=pytest.mark.xfail(reason=reason) if fills else ())


@pytest.mark.parametrize("profile", [*map(flooded, shipped_profiles())])
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
    matches = [rule.match for chain in plan.chains for rule in chain.rules]
    for match in matches:
        if "@ih," in match:
            assert "tcp" in match
        if "@th," in match:
            assert "udp" in match


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


@pytest.mark.parametrize("lack", ["the kernel has no nft_compat", "the kernel has no xt_string"])
def test_a_missing_string_match_is_told_and_takes_only_the_searches(
    lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NftablesBackend, "text_searches", lambda _self: lack)
    ruleset = compile_policy(loaded(tmp_path))
    found, (warning,) = NftablesTarget()._plan(ruleset)
    assert f"no text searches on this kernel ({lack})" in str(warning)
    whole = lower(ruleset)
    assert whole.texts
    assert found.texts == ()
    assert found.sets == whole.sets
    for bare, full in zip(found.chains, whole.chains, strict=True):
        assert bare.rules == tuple(rule for rule in full.rules if "_text_" not in rule.action)


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
