"""Whether a packet of a grant fits what a rule of somebody else asks.

Three answers: yes, no, and cannot tell. A condition that nobody here understands is never a yes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from sipfw.compare.foreign import PortSide

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.compare.foreign import Asked, AskedPorts, Conditions
    from sipfw.lower.xtables import Family
    from sipfw.ruleset.match import PortRange

    Network = IPv4Network | IPv6Network


class Fit(IntEnum):
    """Whether a rule's conditions hold for a packet; the smallest of several counts."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class Grant:
    """What a policy lets in: the first packet of somebody, to some ports.

    `source` is None for a stranger: somebody in none of the networks that any rule names.
    `interfaces` are those that he may come in through, none where that is not known.
    """

    what: str
    family: Family
    proto: str
    ports: PortRange
    source: Network | None = None
    interfaces: frozenset[str] = frozenset()


def fit(asks: Conditions, grant: Grant) -> Fit:
    """Answer for the first packet of a connection.

    Asked for each packet and each rule, so what rules out most stands first, in plain loops.
    """
    for item in asks.protocols:
        if (grant.proto in item.values) is item.negated:
            return Fit.NO
    if asks.opens is False:
        return Fit.NO
    found = Fit.MAYBE if _is_partly_read(asks) else Fit.YES
    for each in asks.ports:
        if each.side is PortSide.DESTINATION:
            found = min(found, _ports(each, grant))
    if found is Fit.NO or not _may_be(asks, grant):
        return Fit.NO
    for network in asks.sources:
        found = min(found, _negated(_within(network.values, grant.source), network))
    for name in asks.sets:
        found = min(found, _in_set(name, grant))
    for name in asks.in_interfaces:
        found = min(found, _negated(_through(name.values, grant.interfaces), name))
    return found


def _may_be(asks: Conditions, grant: Grant) -> bool:
    """Tell whether the first packet of any connection of this family may fit."""
    for item in asks.families:
        if (grant.family in item.values) is item.negated:
            return False
    for state in asks.states:
        if ("new" in state.values) is state.negated:
            return False
    return all(("local" in item.values) is not item.negated for item in asks.destination_types)


def _is_partly_read(asks: Conditions) -> bool:
    """Tell whether something is asked of which a grant says nothing."""
    if asks.unsure or asks.destinations or asks.out_interfaces:
        return True
    return any(item.side is not PortSide.DESTINATION for item in asks.ports)


def _ports(asked: AskedPorts, grant: Grant) -> Fit:
    wanted = grant.ports
    found = Fit.NO
    for item in asked.fitting:
        if item.first <= wanted.first and wanted.last <= item.last:
            return Fit.YES
        if item.overlaps(wanted):
            found = Fit.MAYBE
    return found


def _in_set(asked: Asked[str], grant: Grant) -> Fit:
    """A named set may be a blocklist or a country: its members are not looked at."""
    return Fit.NO if not asked.negated and grant.source is None else Fit.MAYBE


def _negated(found: Fit, asked: Asked[Any]) -> Fit:
    return Fit(Fit.YES - found) if asked.negated else found


def _within(networks: tuple[Network, ...], source: Network | None) -> Fit:
    if source is None:
        return Fit.YES if any(item.prefixlen == 0 for item in networks) else Fit.NO
    same = [item for item in networks if item.version == source.version]
    if any(source.prefixlen >= item.prefixlen and source[0] in item for item in same):
        return Fit.YES
    return Fit.MAYBE if any(item.overlaps(source) for item in same) else Fit.NO


def _through(names: tuple[str, ...], ways: frozenset[str]) -> Fit:
    """`names` may end in a wildcard; nothing that is granted comes in through loopback."""
    if set(names) <= {"lo"}:
        return Fit.NO
    if not ways:
        return Fit.MAYBE
    found = {_is_named(way, names) for way in ways}
    return Fit.MAYBE if len(found) > 1 else Fit.YES if found.pop() else Fit.NO


def _is_named(way: str, names: tuple[str, ...]) -> bool:
    return any(way.startswith(name[:-1]) if name[-1:] in "+*" else way == name for name in names)
