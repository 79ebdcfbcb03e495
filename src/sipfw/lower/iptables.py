"""Ruleset to iptables rules for both families: the one place that knows iptables' options.

Options are limited to what iptables 1.4.21 (CentOS 7) takes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from sipfw.lower.inline_small_sets import inlined
from sipfw.lower.ipset import lower_sets
from sipfw.lower.iptables_match import Draft, add_alternatives, add_match, set_ends
from sipfw.lower.naming import comment, set_name
from sipfw.lower.payload_bpf import BpfPayload
from sipfw.lower.payload_u32 import U32Payload
from sipfw.lower.without_ipset import WithoutIpset
from sipfw.lower.xtables import (
    Family,
    XChain,
    XJump,
    XMatch,
    XParam,
    XPlan,
    XRule,
    XTable,
    XTarget,
)
from sipfw.ruleset.match import Direction
from sipfw.ruleset.model import Base, Chain, Priority, Ruleset, SetKind
from sipfw.ruleset.rule import (
    Accept,
    Action,
    AddOnce,
    DeleteFromSet,
    Done,
    Drop,
    Goto,
    Jump,
    Log,
    NoTrack,
    Record,
    Reset,
    Return,
    Rule,
    UpdateSet,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sipfw.lower.payload import PayloadForm
    from sipfw.ruleset.match import Match

FAMILIES = (Family.IP, Family.IP6)

# Comparing an address costs some 5 ns, asking a hash:net 150 to 300 (docs/performance.md).
_SHORT_LIST = 24


# The check, the plan and the record of one command lower the same ruleset.
@lru_cache(maxsize=2)
def lower(ruleset: Ruleset, *, ipset: bool = True, u32: bool = True) -> XPlan:
    """Return the iptables form of a ruleset.

    Without `ipset`, static sets become one rule per network and dynamic sets become xt_recent
    lists, which hold 100 addresses by default; see `sipfw.lower.without_ipset`. Without `u32`,
    bytes at fixed places are compared by `-m bpf`, which means the same.
    """
    payload = U32Payload() if u32 else BpfPayload()
    lowering = _Lowering(ruleset, None if ipset else WithoutIpset(ruleset), payload)
    tables = tuple(
        table
        for family in FAMILIES
        for priority in Priority
        if (table := lowering.table(priority, family)).chains
    )
    return XPlan(lower_sets(ruleset) if ipset else (), tables)


class _Lowering:
    def __init__(
        self, ruleset: Ruleset, without_ipset: WithoutIpset | None, payload: PayloadForm
    ) -> None:
        self._ruleset = ruleset
        self._without_ipset = without_ipset
        self._payload = payload
        self._kinds = {item.name: item.kind for item in ruleset.sets}

    def table(self, priority: Priority, family: Family) -> XTable:
        chains = [chain for chain in self._ruleset.chains if chain.priority is priority]
        return XTable(
            priority.value,
            family,
            tuple(self._chain(chain, family) for chain in chains),
            tuple(
                _jump(chain.name, chain.base, family) for chain in chains if chain.base is not None
            ),
        )

    def _chain(self, chain: Chain, family: Family) -> XChain:
        rules = [
            lowered
            for rule in chain.rules
            if rule.family in (None, family)
            for lowered in self._rule(rule, family)
        ]
        return XChain(chain.name, tuple(rules))

    def _rule(self, rule: Rule, family: Family) -> list[XRule]:
        if self._without_ipset is not None and self._notes_targets(rule.action):
            # xt_recent knows no ports; the rule that drops counts all of them together.
            return []
        drafts = [Draft()]
        for match in rule.matches:
            drafts = [
                following for draft in drafts for following in self._add(draft, match, family)
            ]
        finished = [self._finish(draft, rule.action, family) for draft in drafts]
        if len(finished) == 1:
            return [_commented(finished[0], rule.id, family)]
        return [
            _commented(item, f"{rule.id}/{number}", family)
            for number, item in enumerate(finished, start=1)
        ]

    def _notes_targets(self, action: Action) -> bool:
        match action:
            case UpdateSet() | AddOnce():
                return self._kinds.get(action.set) is SetKind.TARGET
            case _:
                return False

    def _add(self, draft: Draft, match: Match, family: Family) -> list[Draft]:
        short = inlined(self._ruleset, match, family, _SHORT_LIST)
        if short is not None:
            return add_alternatives(draft, short, family)
        return add_match(
            draft, match, family, self._without_ipset, self._kinds, payload=self._payload
        )

    def _finish(self, draft: Draft, action: Action, family: Family) -> XRule:
        extra, target = self._action(action, family)
        if isinstance(action, Reset):
            # ipt_REJECT refuses the reset in a rule that does not ask for TCP.
            draft = draft.with_protocol("tcp")
        return draft.rule(extra, target)

    def _action(self, action: Action, family: Family) -> tuple[tuple[XMatch, ...], XTarget | None]:
        match action:
            case Accept():
                return (), XTarget("ACCEPT")
            case Done() | Return():
                # Chains that say Done are only ever entered by goto (see ruleset.lint), so that
                # RETURN leaves all of them and foreign rules of the hook still get their say.
                return (), XTarget("RETURN")
            case Drop():
                return (), XTarget("DROP")
            case Jump():
                return (), XTarget(action.chain)
            case Goto():
                return (), XTarget(action.chain, goto=True)
            case Reset():
                return (), XTarget("REJECT", (XParam("reject-with", ("tcp-reset",)),))
            case Record() if self._without_ipset is not None:
                return (self._without_ipset.record(action, family),), None
            case Record():
                ends = (set_name(action.list, family), Direction.SOURCE.value)
                return (), XTarget("SET", (XParam("add-set", ends),))
            case NoTrack():
                return (), XTarget("CT", (XParam("notrack"),))
            case Log():
                return (), _log(action)
            case UpdateSet() | AddOnce() | DeleteFromSet():
                return self._set_action(action, family)

    def _set_action(
        self, action: UpdateSet | AddOnce | DeleteFromSet, family: Family
    ) -> tuple[tuple[XMatch, ...], XTarget | None]:
        if self._without_ipset is not None:
            return (self._without_ipset.change(action, family),), None
        name, end = (
            set_name(action.set, family),
            set_ends(action.direction, self._kinds.get(action.set)),
        )
        match action:
            case UpdateSet():
                return (), XTarget("SET", (XParam("add-set", (name, end)), XParam("exist")))
            case AddOnce():
                absent = [XParam("match-set", (name, end), negate=True)]
                if not action.counting:
                    # Looking must not count: the element starts at zero when it is added.
                    absent.append(XParam("update-counters", negate=True))
                added = XTarget("SET", (XParam("add-set", (name, end)),))
                return (XMatch("set", tuple(absent)),), added
            case DeleteFromSet():
                return (), XTarget("SET", (XParam("del-set", (name, end)),))


def _log(action: Log) -> XTarget:
    if action.group is None:
        return XTarget("LOG", (XParam("log-prefix", (action.prefix,)),))
    group = XParam("nflog-group", (str(action.group),))
    return XTarget("NFLOG", (group, XParam("nflog-prefix", (action.prefix,))))


def _jump(chain: str, base: Base, family: Family) -> XJump:
    rule_id = f"hook.{base.priority}.{base.hook}"
    return XJump(
        base.hook.upper(), _commented(XRule(comment="", target=XTarget(chain)), rule_id, family)
    )


def _commented(rule: XRule, rule_id: str, family: Family) -> XRule:
    return replace(rule, comment=comment(rule_id, rule, family))


def all_rules(plan: XPlan) -> Iterator[tuple[XTable, str, XRule]]:
    """Walk every rule of a plan with its table and chain, jumps included."""
    for table in plan.tables:
        for jump in table.jumps:
            yield table, jump.hook, jump.rule
        for chain in table.chains:
            for rule in chain.rules:
                yield table, chain.name, rule
