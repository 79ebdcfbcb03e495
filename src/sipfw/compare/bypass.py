"""Whether a rule before our jump lets packets go past it. Drops and plain chains may stand so."""

from __future__ import annotations

from itertools import chain as chained
from typing import TYPE_CHECKING

from sipfw.compare.foreign import PortSide, Verdict
from sipfw.lower.nftables_plan import TABLE
from sipfw.lower.xtables_words import transport_and_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sipfw.compare.foreign import Conditions, ForeignChain, ForeignRule
    from sipfw.compare.live import LiveJump
    from sipfw.ruleset.match import PortRange

    # The transport and the destination ports that a rule of ours is for.
    Lead = tuple[str | None, tuple[PortRange, ...]]

_ENDS = frozenset({Verdict.ACCEPT, Verdict.QUEUE})
# The end of a built-in chain is its policy: a return there passes us by as well.
_ENDS_AT_ONCE = _ENDS | {Verdict.RETURN}
_STATES = frozenset({"related", "established"})


def ways_past(jump: LiveJump, lead: str | None = None, *, of_open: bool = False) -> Iterator[str]:
    """Yield the rules before a jump that let packets past it, with the inner rule that does.

    With `lead`, the words of a rule of ours behind the jump, only what may take packets that it is
    for; `of_open` says that these are packets of connections that stand.
    """
    chains = {chain.name: chain for chain in jump.led}
    ours = None if lead is None else transport_and_ports(lead)
    for rule in jump.before:
        if jump.table == TABLE:
            # Nobody has any business in our own table, whatever the rule is for.
            if any(item.verdict in _ENDS_AT_ONCE | {Verdict.GOTO} for item in rule.each):
                yield rule.line
            continue
        if jump.table == "filter" and _is_of_old_connections(rule.asks) and not of_open:
            continue
        if ours is not None and not _may_concern(rule.asks, ours):
            continue
        inner = _way(rule, _Inside(jump.table, chains, ours, of_open=of_open))
        if inner is not None:
            yield rule.line if inner is rule else f"{rule.line} and there {inner.line}"


def _may_concern(asks: Conditions, ours: Lead) -> bool:
    """Tell whether a rule may take packets that a rule of ours is for.

    It does not where both name ports, and different ones, or where it is about another protocol.
    """
    transport, ports = ours
    if any(not item.negated and transport not in item.values for item in asks.protocols):
        return False
    # Two conditions may ask for the port before a translation and for that behind it: the latter
    # counts, since our rules see packets behind it.
    theirs = next(chained(asks.ports_of(), asks.ports_of(PortSide.ORIGINAL)), None)
    if not ports or theirs is None or theirs.negated:
        return True
    return any(one.overlaps(other) for one in ports for other in theirs.values)


def _is_of_old_connections(asks: Conditions) -> bool:
    """Tell whether it is for connections that are open, which our host part lets in too."""
    return (
        bool(asks.states)
        and not asks.negates
        and all(_STATES.issuperset(item.values) for item in asks.states)
    )


def _is_narrow(asks: Conditions) -> bool:
    """Tell whether it opens one interface or one port, as a tool does for its own service."""
    return bool(asks.in_interfaces) or any(asks.ports_of())


def _way(rule: ForeignRule, inside: _Inside) -> ForeignRule | None:
    """Return the rule that lets packets past, itself or in a chain that it leads to."""
    if rule.asks.is_loopback:
        return None
    if rule.verdict in _ENDS_AT_ONCE:
        return rule
    chain = inside.chains.get(rule.leads_to or "")
    if chain is None:
        return None
    inner = inside.way(chain)
    if inner is not None:
        return inner
    return rule if rule.verdict is Verdict.GOTO and not _is_wall(chain) else None


class _Inside:
    """Looks for a way past in a chain and those that it leads to, each once."""

    def __init__(
        self, table: str, chains: Mapping[str, ForeignChain], lead: Lead | None, *, of_open: bool
    ) -> None:
        self._filters = table == "filter"
        self.chains = chains
        self._lead = lead
        self._of_open = of_open
        self._seen: set[str] = set()

    def way(self, chain: ForeignChain) -> ForeignRule | None:
        """Return the rule that lets packets past."""
        if chain.name in self._seen:
            return None
        self._seen.add(chain.name)
        for rule in chain.rules:
            if rule.asks.is_loopback or self._is_of_no_matter(rule.asks):
                continue
            if rule.verdict in _ENDS:
                return rule
            further = self.chains.get(rule.leads_to or "")
            inner = None if further is None else self.way(further)
            if inner is not None:
                return inner
            if rule.is_wall:
                return None
        return None

    def _is_of_no_matter(self, asks: Conditions) -> bool:
        """Tell what libvirt, a VPN and the like open for themselves; SIP is judged in table raw."""
        if self._lead is not None and not _may_concern(asks, self._lead):
            return True
        narrow = _is_narrow(asks) and self._lead is None
        old = _is_of_old_connections(asks) and not self._of_open
        return self._filters and (narrow or old)


def _is_wall(chain: ForeignChain) -> bool:
    return any(rule.is_wall for rule in chain.rules)
