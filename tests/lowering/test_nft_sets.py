"""The sets of an nftables plan: what the policy says, what is learned, the buckets of limits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from lowered import ORIGIN, nft_plan, without_digests
from match_cases import PER_SECOND, SETS

from sipfw.lower.nftables import lower
from sipfw.lower.nftables_plan import NftSet
from sipfw.ruleset.match import (
    ConnectionsAbove,
    Match,
    PrefixLengths,
    Rate,
    RateAbove,
    SeenAtLeast,
    TimeUnit,
)
from sipfw.ruleset.model import AddressSet, Ruleset, SetKind
from sipfw.ruleset.rule import Drop, Rule


def lowered(*sets: AddressSet) -> dict[str, NftSet]:
    return {item.name: item for item in lower(Ruleset((), sets, ())).sets}


BY_NAME = {item.name: item for item in SETS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "trusted",
            {
                "trusted-nets4": ("ipv4_addr", ("interval",), ("192.0.2.0/24",)),
                "trusted-nets6": ("ipv6_addr", ("interval",), ("2001:db8::/32",)),
            },
        ),
        ("nobody", {"nobody4": ("ipv4_addr", (), ()), "nobody6": ("ipv6_addr", (), ())}),
        (
            "single",
            {
                "single4": ("ipv4_addr", (), ("192.0.2.7",)),
                "single6": ("ipv6_addr", (), ("2001:db8::7",)),
            },
        ),
        (
            "mixed",
            {
                "mixed4": ("ipv4_addr", (), ("203.0.113.1",)),
                "mixed-nets4": (
                    "ipv4_addr",
                    ("interval",),
                    tuple(f"198.51.100.{16 * number}/28" for number in range(1, 10)),
                ),
                "mixed6": ("ipv6_addr", (), ("2001:db8:ffff::1",)),
                "mixed-nets6": (
                    "ipv6_addr",
                    ("interval",),
                    tuple(f"2001:db8:{number}::/48" for number in range(1, 10)),
                ),
            },
        ),
        # Addresses of host names come later, and rules ask for both sets already.
        (
            "named",
            {
                "named4": ("ipv4_addr", (), ()),
                "named-nets4": ("ipv4_addr", ("interval",), ("192.0.2.0/24",)),
                "named6": ("ipv6_addr", (), ()),
                "named-nets6": ("ipv6_addr", ("interval",), ("2001:db8::/32",)),
            },
        ),
        (
            "named-single",
            {
                "named-single4": ("ipv4_addr", (), ("192.0.2.7",)),
                "named-single-nets4": ("ipv4_addr", ("interval",), ()),
                "named-single6": ("ipv6_addr", (), ("2001:db8::7",)),
                "named-single-nets6": ("ipv6_addr", ("interval",), ()),
            },
        ),
        (
            "trusted-ports",
            {
                "trusted-ports4": (
                    "ipv4_addr . inet_proto . inet_service",
                    ("interval",),
                    ("192.0.2.0/24 . udp . 5060", "192.0.2.0/24 . tcp . 5060"),
                ),
                "trusted-ports6": (
                    "ipv6_addr . inet_proto . inet_service",
                    ("interval",),
                    ("2001:db8::/32 . udp . 5062",),
                ),
            },
        ),
    ],
)
def test_what_the_policy_says_is_split_by_family_and_by_kind(
    name: str, expected: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]
) -> None:
    found = lowered(BY_NAME[name])
    assert {key: (item.type, item.flags, item.elements) for key, item in found.items()} == expected
    assert all(item.static and item.timeout is None for item in found.values())


def test_every_network_is_in_a_set_that_a_rule_asks() -> None:
    both = lowered(BY_NAME["mixed"]).values()
    elements = {ip_network(element) for item in both for element in item.elements}
    assert elements == set(BY_NAME["mixed"].networks)


@pytest.mark.parametrize("counted", [False, True])
def test_a_learned_set_forgets(*, counted: bool) -> None:
    banned = AddressSet("banned", SetKind.HOST, "banned", ORIGIN, timeout=3600, size=1000)
    wanted = NftSet(
        "banned4",
        "banned",
        "ipv4_addr",
        ("dynamic", "timeout"),
        timeout=3600,
        size=1000,
        metered=counted,
        of="banned",
    )
    assert lowered(replace(banned, counted=counted)) == {
        "banned4": wanted,
        "banned6": replace(wanted, name="banned6", type="ipv6_addr"),
    }


def _buckets(match: Match) -> list[NftSet]:
    found = nft_plan(Rule("rule", (match,), Drop(), "a rule", ORIGIN)).sets
    return [replace(item, name=without_digests(f"@{item.name} ").strip("@ ")) for item in found]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (
            RateAbove("source", PER_SECOND, 20, PrefixLengths(32, 64), expire=90, table_size=1024),
            NftSet("source", "", "ADDRESS", ("dynamic", "timeout"), timeout=90, size=1024),
        ),
        # Not forgotten before it has refilled.
        (
            RateAbove("slow", Rate(1, TimeUnit.MINUTE), 10, PrefixLengths(24, 48), with_port=True),
            NftSet(
                "slow",
                "",
                "ADDRESS . inet_service",
                ("dynamic", "timeout"),
                timeout=601,
                size=65536,
            ),
        ),
        (
            SeenAtLeast("recent", 20, 30, table_size=2048),
            NftSet("recent", "", "ADDRESS", ("dynamic", "timeout"), timeout=30, size=2048),
        ),
        (
            ConnectionsAbove(10, PrefixLengths(24, 48)),
            NftSet("conn24", "", "ADDRESS", ("dynamic",), timeout=None, size=65536),
        ),
    ],
)
def test_a_limit_has_a_bucket_for_each_source(match: Match, expected: NftSet) -> None:
    assert _buckets(match) == [
        replace(
            expected,
            name=f"{expected.name}-{digit}",
            summary=f"buckets of {expected.name}",
            type=expected.type.replace("ADDRESS", f"ipv{digit}_addr"),
            metered=True,
        )
        for digit in (4, 6)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"burst": 21},
        {"rate": Rate(11, TimeUnit.SECOND)},
        {"expire": 61},
        {"with_port": True},
        {"prefix": PrefixLengths(24, 48)},
    ],
)
def test_other_parameters_make_another_bucket_set(change: dict[str, object]) -> None:
    """An element keeps the limit it was made with."""

    def names(match: RateAbove) -> set[str]:
        plan = nft_plan(Rule("rule", (match,), Drop(), "a rule", ORIGIN))
        return {item.name for item in plan.sets}

    one = RateAbove("source", PER_SECOND, 20, PrefixLengths(32, 64))
    assert names(one) == names(replace(one))
    assert not names(one) & names(replace(one, **change))  # type: ignore[arg-type]
