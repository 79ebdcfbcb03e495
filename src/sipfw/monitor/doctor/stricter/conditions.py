"""What a foreign rule asks, as far as it is understood, and whether a packet of a grant fits.

Three answers: yes, no, and cannot tell. A condition that nobody here understands is never a yes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

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


@dataclass(slots=True)
class Condition:
    """The conditions of one rule; None asks nothing.

    `in_set` is True for members of a named set, False for all others. `never` is for what no grant
    is, such as ICMP; `unsure` for what is not understood.
    """

    family: Family | None = None
    protocols: frozenset[str] | None = None
    ports: tuple[PortRange, ...] | None = None
    sources: tuple[Network, ...] | None = None
    not_sources: tuple[Network, ...] | None = None
    in_set: bool | None = None
    states: frozenset[str] | None = None
    interfaces: frozenset[str] | None = None
    not_interfaces: frozenset[str] | None = None
    never: bool = False
    unsure: bool = False

    def fit(self, grant: Grant) -> Fit:
        """Answer for the first packet of a connection."""
        if self.never or self.family not in (None, grant.family):
            return Fit.NO
        if self.protocols is not None and grant.proto not in self.protocols:
            return Fit.NO
        if self.states is not None and "new" not in self.states:
            return Fit.NO
        found = Fit.MAYBE if self.unsure else Fit.YES
        for ask in (self._ports, self._source, self._set, self._interface):
            found = min(found, ask(grant))
            if found is Fit.NO:
                return found
        return found

    def _ports(self, grant: Grant) -> Fit:
        if self.ports is None:
            return Fit.YES
        wanted = grant.ports
        if any(item.first <= wanted.first and wanted.last <= item.last for item in self.ports):
            return Fit.YES
        return Fit.MAYBE if any(item.overlaps(wanted) for item in self.ports) else Fit.NO

    def _source(self, grant: Grant) -> Fit:
        found = Fit.YES
        if self.sources is not None:
            found = _within(self.sources, grant.source)
        if self.not_sources is not None:
            found = min(found, Fit(Fit.YES - _within(self.not_sources, grant.source)))
        return found

    def _set(self, grant: Grant) -> Fit:
        """A named set may be a blocklist or a country: its members are not looked at."""
        if self.in_set is None:
            return Fit.YES
        return Fit.NO if self.in_set and grant.source is None else Fit.MAYBE

    def _interface(self, grant: Grant) -> Fit:
        found = Fit.YES
        if self.interfaces is not None:
            found = _through(self.interfaces, grant.interfaces)
        if self.not_interfaces is not None:
            found = min(found, Fit(Fit.YES - _through(self.not_interfaces, grant.interfaces)))
        return found


def _within(networks: tuple[Network, ...], source: Network | None) -> Fit:
    if source is None:
        return Fit.YES if any(item.prefixlen == 0 for item in networks) else Fit.NO
    same = [item for item in networks if item.version == source.version]
    if any(source.prefixlen >= item.prefixlen and source[0] in item for item in same):
        return Fit.YES
    return Fit.MAYBE if any(item.overlaps(source) for item in same) else Fit.NO


def _through(names: frozenset[str], ways: frozenset[str]) -> Fit:
    """`names` may end in a wildcard; nothing that is granted comes in through loopback."""
    if names <= {"lo"}:
        return Fit.NO
    if not ways:
        return Fit.MAYBE
    found = {_is_named(way, names) for way in ways}
    return Fit.MAYBE if len(found) > 1 else Fit.YES if found.pop() else Fit.NO


def _is_named(way: str, names: frozenset[str]) -> bool:
    return any(way.startswith(name[:-1]) if name[-1:] in "+*" else way == name for name in names)
