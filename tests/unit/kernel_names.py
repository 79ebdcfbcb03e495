"""Every mark and name of sipfw's that the kernel gets, for each shipped profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler.pipeline import compile_policy
from sipfw.lower.iptables import lower
from sipfw.lower.nftables import lower as lower_nft
from sipfw.policy.load import Request, load, shipped_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.lower.nftables_plan import NftPlan
    from sipfw.lower.xtables import XPlan

NAMED = {"hashlimit-name", "name"}


def iptables_names(plan: XPlan) -> Iterator[str]:
    """Walk the marks of rules, and the names of chains, sets and tables of hashlimit and recent."""
    yield from (item.name for item in plan.sets)
    for table in plan.tables:
        rules = [(jump.hook, jump.rule) for jump in table.jumps]
        rules += [(chain.name, rule) for chain in table.chains for rule in chain.rules]
        for chain, rule in rules:
            yield f"{table.family} {table.name} {chain} {rule.comment}"
            for match in rule.matches:
                yield from (param.values[0] for param in match.params if param.name in NAMED)


def nftables_names(plan: NftPlan) -> Iterator[str]:
    """Walk the marks of rules, and the names of chains, sets and meters."""
    yield from (item.name for item in plan.sets)
    for chain in (*plan.chains, *plan.texts):
        yield from (f"{chain.name} {rule.comment}" for rule in chain.rules)


def all_names() -> dict[str, list[str]]:
    """Return the names by profile and backend."""
    names: dict[str, list[str]] = {}
    for profile in shipped_profiles():
        ruleset = compile_policy(load(Request(profile=profile)))
        names[f"{profile}, iptables"] = list(iptables_names(lower(ruleset)))
        setless = lower(ruleset, ipset=False, u32=False)
        names[f"{profile}, without ipset and u32"] = list(iptables_names(setless))
        names[f"{profile}, nftables"] = list(nftables_names(lower_nft(ruleset)))
    return names
