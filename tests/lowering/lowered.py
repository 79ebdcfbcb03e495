"""One rule of the ruleset, lowered and printed without its comment: what the tables compare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.lower.iptables import lower
from sipfw.lower.xtables import Family, XPlan
from sipfw.render.xtables_text import rule_line
from sipfw.ruleset.model import AddressSet, Base, Chain, Hook, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Action, Drop, Origin, Rule

if TYPE_CHECKING:
    from sipfw.ruleset.match import Match

ORIGIN = Origin("limits", "policy.yaml", 3)

_COMMENT = re.compile(r'-m comment --comment "sipfw:\S+#[0-9a-f]{8}" ?')


def plan(*rules: Rule, sets: tuple[AddressSet, ...] = (), ipset: bool = True) -> XPlan:
    """Lower a ruleset of one chain."""
    base = Base(Hook.PREROUTING, Priority.RAW)
    chain = Chain("CHAIN", Layer.ENTRY, "a chain", rules, Priority.RAW, base)
    return lower(Ruleset((chain,), sets, ()), ipset=ipset)


def lines(
    *matches: Match,
    action: Action | None = None,
    sets: tuple[AddressSet, ...] = (),
    ipset: bool = True,
    family: Family = Family.IP,
) -> list[str]:
    """Return the arguments of each iptables rule for one rule of the ruleset."""
    rule = Rule("rule", matches, action or Drop(), "a rule", ORIGIN)
    lowered = plan(rule, sets=sets, ipset=ipset)
    return [
        _COMMENT.sub("", rule_line(chain.name, item)).removeprefix("-A CHAIN ").rstrip()
        for table in lowered.tables
        if table.family is family
        for chain in table.chains
        for item in chain.rules
    ]
