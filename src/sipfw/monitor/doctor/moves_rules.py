"""Port moves in the rules of the host: what iptables and nft send to another port or address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from sipfw.compare.foreign import ForeignRule, PortSide
from sipfw.kernel.nft import glance
from sipfw.kernel.nft.foreign_text import foreign_rule
from sipfw.monitor.doctor.port_moves import EVERY_PORT, PROTOS, PortMove, bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sipfw.compare.foreign import Conditions, Sent
    from sipfw.kernel.nft.text_listing import NftBlock
    from sipfw.monitor.doctor.rules import XtablesListing
    from sipfw.ruleset.match import L4Proto, PortRange

    # The rules of a chain; none where there is no such chain.
    Rules = Callable[[str], Sequence[ForeignRule]]

# TPROXY is for mangle; what leaves this host by itself does not come from outside.
_TABLES = frozenset({"nat", "mangle"})
_START = "PREROUTING"
_FAMILIES = frozenset({"ip", "ip6", "inet"})
# In `input` a datagram's port may still be written over before its socket is looked up.
_HOOKS = frozenset({"prerouting", "input"})


@dataclass(frozen=True, slots=True)
class _Packets:
    """Which packets come to a place: their transports and ports."""

    protos: frozenset[L4Proto] = PROTOS
    ports: int = EVERY_PORT

    def under(self, asks: Conditions) -> _Packets:
        """Return those that a rule is for; none comes from outside through loopback."""
        protos, ports = self.protos, 0 if asks.is_loopback else self.ports
        for asked in asks.protocols:
            protos -= {item for item in PROTOS if (item in asked.values) == asked.negated}
        for each in asks.ports_of(*PortSide):
            ports &= _bits(each.fitting)
        return _Packets(protos, ports)


def moves_of_iptables(listing: XtablesListing) -> Iterator[PortMove]:
    """Yield what one table does with packets from outside, chain by chain as they reach it."""
    if listing.table in _TABLES:
        chains = {chain.name: chain.rules for chain in listing.chains}
        table = listing.program, listing.table
        yield from _moves("", table, [_START], lambda name: chains.get(name, ()))


def moves_of_nft(
    blocks: Sequence[NftBlock], members: Callable[[str, str, str], str | None]
) -> Iterator[PortMove]:
    """Yield the same for all tables of nft; `members` lists a named set or map of a table."""
    tables: dict[tuple[str, str], dict[str, NftBlock]] = {}
    for block in blocks:
        if block.is_chain and block.family in _FAMILIES:
            tables.setdefault((block.family, block.table), {})[block.name] = block
    for (family, table), chains in tables.items():
        rules = cache(partial(_rules_of_nft, chains, partial(members, family, table)))
        starts = [name for name, chain in chains.items() if chain.hook in _HOOKS]
        yield from _moves("nft ", (family, table), starts, rules)


def _rules_of_nft(
    chains: dict[str, NftBlock], members: Callable[[str], str | None], name: str
) -> tuple[ForeignRule, ...]:
    lines = chains[name].lines if name in chains else ()
    # What neither sends nor leads is not worth reading here, and blocklists have thousands of such.
    return tuple(
        foreign_rule(line, members) if glance.sends_or_leads(line) else ForeignRule(line)
        for line in lines
    )


def _moves(
    tool: str, table: tuple[str, str], starts: Iterable[str], rules: Rules
) -> Iterator[PortMove]:
    waiting = [(name, _Packets()) for name in starts]
    reached = set(waiting)
    while waiting:
        name, packets = waiting.pop()
        listed = ((n, each) for n, found in enumerate(rules(name)) for each in found.each)
        for number, rule in listed:
            here = packets.under(rule.asks)
            if not here.protos or not here.ports:
                continue
            step = rule.leads_to or "", here
            if step[0] and step not in reached:
                reached.add(step)
                waiting.append(step)
            for sent in rule.sent:
                if sent.ports is not None:
                    found = _move(here, sent, sent.ports, f"{tool}{' '.join(table)} {name}")
                    yield replace(found, line=rule.line, rule=(*table, name, number))


def _move(here: _Packets, sent: Sent, to: PortRange, where: str) -> PortMove:
    ports = here.ports if sent.of is None else here.ports & _bits([sent.of])
    address = sent.addresses[0] if sent.addresses else None
    return PortMove(here.protos, ports, bits(to.first, to.last), address, where, "")


def _bits(ranges: Iterable[PortRange]) -> int:
    found = 0
    for item in ranges:
        found |= bits(item.first, item.last)
    return found
