"""Names and lines of nftables base chains: each has one rule for every family."""

from __future__ import annotations

import re

from sipfw.ruleset.model import Base, Hook, Priority
from sipfw.ruleset.rule import Family

# Priorities by nft's names: raw is before connection tracking (-200), mangle before dstnat (-100).
_PRIORITIES = {Priority.RAW: -300, Priority.MANGLE: -150, Priority.FILTER: 0}
_NFPROTO = {Family.IP: "ipv4", Family.IP6: "ipv6"}
_NUMBERS = {family: str(number) for number, family in enumerate(Family, start=1)}
_ID = re.compile(r"hook\..*/(?P<number>\d+)")


def base_name(base: Base) -> str:
    """Name the base chain, `raw_prerouting` for example."""
    return f"{base.priority}_{base.hook}"


def base_line(base: Base) -> str:
    """Return the line that hooks a base chain."""
    return written_line("filter", base.hook, _PRIORITIES[base.priority], "accept")


def base_lines() -> dict[str, str]:
    """Return the line of every base chain that a plan may have, by its name."""
    bases = [Base(hook, priority) for hook in Hook for priority in Priority]
    return {base_name(base): base_line(base) for base in bases}


def written_line(kind: str, hook: str, priority: int, policy: str) -> str:
    """Write such a line from its values."""
    return f"type {kind} hook {hook} priority {priority}; policy {policy};"


def family_match(family: Family) -> str:
    """Return the condition that lets only packets of the family through."""
    return f"meta nfproto {_NFPROTO[family]}"


def hook_id(base: Base, family: Family) -> str:
    """Return the id of the rule that leads the family's packets into our chains."""
    return f"hook.{base.priority}.{base.hook}/{_NUMBERS[family]}"


def hook_families(rule_id: str) -> tuple[Family, ...]:
    """Return the families that the rule of that id is for.

    Both for a rule without a number: older versions had one for both.
    """
    found = _ID.fullmatch(rule_id)
    if found is None:
        return tuple(Family)
    return tuple(family for family, number in _NUMBERS.items() if number == found["number"])
