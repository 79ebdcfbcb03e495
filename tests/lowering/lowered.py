"""One rule of the ruleset, lowered and printed without its comment: what the tables compare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sipfw.lower.iptables import lower
from sipfw.lower.nftables import lower as lower_nft
from sipfw.lower.xtables import Family, XPlan
from sipfw.render.xtables_text import rule_line
from sipfw.ruleset.model import AddressSet, Base, Chain, Hook, Layer, Priority, Ruleset
from sipfw.ruleset.rule import Action, Drop, Goto, Origin, Return, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.lower.nftables_plan import NftPlan, NftRule
    from sipfw.ruleset.match import Match

ORIGIN = Origin("limits", "policy.yaml", 3)

_COMMENT = re.compile(r'-m comment --comment "sipfw:\S+#[0-9a-f]{8}" ?')
_HASHLIMIT_DIGEST = re.compile(r"(?<=--hashlimit-name sf-)(\S+)-[0-9a-f]+")
_BUCKETS_DIGEST = re.compile(r"(?<=@)(\S+)-[0-9a-f]{6}-(?=[46] )")


def one_chain(*rules: Rule, sets: tuple[AddressSet, ...] = ()) -> Ruleset:
    """Return a ruleset of one chain."""
    base = Base(Hook.PREROUTING, Priority.RAW)
    chain = Chain("CHAIN", Layer.ENTRY, "a chain", rules, Priority.RAW, base)
    return Ruleset((chain,), sets, ())


def plan(*rules: Rule, sets: tuple[AddressSet, ...] = (), ipset: bool = True) -> XPlan:
    """Lower a ruleset of one chain for iptables."""
    return lower(one_chain(*rules, sets=sets), ipset=ipset)


def nft_plan(*rules: Rule, sets: tuple[AddressSet, ...] = ()) -> NftPlan:
    """Lower a ruleset of one chain for nftables."""
    return lower_nft(one_chain(*rules, sets=sets))


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


def without_digests(line: str) -> str:
    """Leave the digests in names of limits out: the rest of the line says what they stand for."""
    return _BUCKETS_DIGEST.sub(r"\1-", _HASHLIMIT_DIGEST.sub(r"\1", line))


def nft_lines(
    *matches: Match,
    action: Action | None = None,
    sets: tuple[AddressSet, ...] = (),
    family: Family = Family.IP,
) -> list[str]:
    """Return the statements of each nftables rule for one rule of the ruleset.

    A search for a text, which nft cannot write, is shown as `search from OFFSET TEXT`.
    """
    rule = Rule("rule", matches, action or Drop(), "a rule", ORIGIN)
    # What a rule may leave out depends on the rules behind it, so there is one.
    behind = Rule("behind", (), Return(), "a rule", ORIGIN)
    lowered = nft_plan(rule, behind, sets=sets)
    (chain,) = [chain for chain in lowered.chains if chain.name == f"CHAIN{_digit(family)}"]
    *found, last = [line for item in chain.rules for line in _nft_shown(lowered, item)]
    assert last == "counter return"
    return found


def _nft_shown(lowered: NftPlan, rule: NftRule) -> Iterator[str]:
    searches = [chain for chain in lowered.texts if rule.action == f"jump {chain.name}"]
    for search in (item for chain in searches for item in chain.rules):
        verdict = search.verdict
        ending = f"goto {verdict.chain}" if isinstance(verdict, Goto) else verdict
        yield f"search from {search.offset} {search.pattern.decode()} {ending}"
    if not searches:
        words = (rule.match, "counter" if rule.counted else "", rule.action)
        yield " ".join(word for word in words if word)


def _digit(family: Family) -> int:
    return 4 if family is Family.IP else 6
