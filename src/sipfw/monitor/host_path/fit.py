"""Whether packets fit what a rule of somebody else asks.

Three answers: yes, no, and cannot tell. A condition that nobody here understands is never a yes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from sipfw.compare.foreign import EVERY_PORT, PortSide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Network, IPv6Network
    from typing import TypeAlias

    from sipfw.compare.foreign import Asked, AskedPorts, Conditions
    from sipfw.lower.xtables import Family
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.match import PortRange

    Network = IPv4Network | IPv6Network
    # Whether all of a network is in a named set, None where nobody can tell.
    Members: TypeAlias = Callable[[str, Network], bool | None]

NEW = "new"
ESTABLISHED = "established"
INVALID = "invalid"
UNTRACKED = "untracked"


class Fit(IntEnum):
    """Whether a rule's conditions hold for a packet; the smallest of several counts."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class Grant:
    """Packets between somebody and this host, alike as far as rules can tell.

    `ports` are those of this host, `source` is who speaks to it, None for a stranger: somebody in
    none of the networks that any rule names. `interfaces` are those that lie between, none where
    that is not known; `own` the addresses of this host that are meant, most likely those of `near`.
    `state` is what connection
    tracking calls a packet. `answer` turns all round: what this host sends back. `asked` are the
    ports before any translation, None where there was none. `marked` says that a rule may have put
    a mark on it, `queues` are those that a program takes packets from.
    """

    what: str
    family: Family
    proto: str
    ports: PortRange
    source: Network | None = None
    interfaces: frozenset[str] = frozenset()
    own: frozenset[IpAddress] = frozenset()
    near: frozenset[IpAddress] = frozenset()
    state: str = NEW
    opens: bool = True
    answer: bool = False
    far_ports: PortRange = EVERY_PORT
    asked: PortRange | None = None
    local: bool = False
    marked: bool = False
    queues: frozenset[int] = frozenset()

    def answered(self) -> Grant:
        """Return what this host sends back."""
        state = UNTRACKED if self.state == UNTRACKED else ESTABLISHED
        return replace(self, answer=True, state=state, opens=False)


def fit(asks: Conditions, grant: Grant, members: Members | None = None) -> Fit:
    """Answer for a packet.

    Asked for each packet and each rule, so what rules out most stands first, in plain loops.
    """
    for item in asks.protocols:
        if (grant.proto in item.values) is item.negated:
            return Fit.NO
    if asks.opens is not None and asks.opens is not grant.opens and grant.proto == "tcp":
        return Fit.NO
    found = Fit.MAYBE if asks.unsure else Fit.YES
    for each in asks.ports:
        found = min(found, _ports(each, grant))
    if found is Fit.NO or not _may_be(asks, grant):
        return Fit.NO
    if asks.sources or asks.destinations or asks.sets:
        found = min(found, *_ends(asks, grant, members))
    if asks.in_interfaces or asks.out_interfaces:
        found = min(found, *_interfaces(asks, grant))
    if asks.marks:
        found = min(found, *(_marked(asked, grant) for asked in asks.marks))
    return min(found, Fit.MAYBE) if _of_unicast(asks, grant) else found


def doubt(asks: Conditions, grant: Grant, members: Members | None = None) -> str:
    """Say what it depends on whether a rule fits of which nobody can tell."""
    if asks.unsure:
        return " ".join(asks.unsure)
    for name in asks.sets:
        if _in_set(name, grant, members) is Fit.MAYBE:
            return f"whether its source is in {name.values[0]}"
    for kind, networks in (("sources", asks.sources), ("destinations", asks.destinations)):
        for asked in networks:
            if _end(asked, kind, grant) is Fit.MAYBE:
                end = kind.removesuffix("s")
                return f"whether its {end} is in {', '.join(map(str, asked.values))}"
    for mark in asks.marks:
        if _marked(mark, grant) is Fit.MAYBE:
            return f"the mark: {', '.join(map(hex, mark.values))}"
    if _of_unicast(asks, grant):
        return "whether its destination counts as unicast"
    for ports in asks.ports:
        if _ports(ports, grant) is Fit.MAYBE:
            return f"the {ports.side} port: {', '.join(map(str, ports.values))}"
    named = [name for item in asks.in_interfaces + asks.out_interfaces for name in item.values]
    return f"the interface: {', '.join(named)}"


def _may_be(asks: Conditions, grant: Grant) -> bool:
    """Tell whether any packet of this family and state may fit."""
    for item in asks.families:
        if (grant.family in item.values) is item.negated:
            return False
    for state in asks.states:
        if (grant.state in state.values) is state.negated:
            return False
    if _of_unicast(asks, grant):
        return True
    kind = "unicast" if grant.answer else "local"
    return all((kind in item.values) is not item.negated for item in asks.destination_types)


def _of_unicast(asks: Conditions, grant: Grant) -> bool:
    """Tell whether it asks of IPv6 what the two packet filters take for different things.

    To xt_addrtype an address of this host is unicast too; to nft_fib it is local alone.
    """
    types = (item.values for item in asks.destination_types)
    return grant.family == "ip6" and any("unicast" in values for values in types)


def _marked(asked: Asked[int], grant: Grant) -> Fit:
    """A packet that comes in has no mark, and nor has its new connection."""
    if grant.marked or grant.answer or grant.state == ESTABLISHED:
        return Fit.MAYBE
    return _negated(Fit.YES if 0 in asked.values else Fit.NO, asked)


def _ports(asked: AskedPorts, grant: Grant) -> Fit:
    near, far = grant.ports, grant.far_ports
    if asked.side is PortSide.ORIGINAL:
        return _covers(asked, grant.asked or near)
    source, destination = (near, far) if grant.answer else (far, near)
    if asked.side is PortSide.SOURCE:
        return _covers(asked, source)
    if asked.side is PortSide.DESTINATION:
        return _covers(asked, destination)
    return max(_covers(asked, source), _covers(asked, destination))


def _covers(asked: AskedPorts, wanted: PortRange) -> Fit:
    found = Fit.NO
    for item in asked.fitting:
        if item.first <= wanted.first and wanted.last <= item.last:
            return Fit.YES
        if item.overlaps(wanted):
            found = Fit.MAYBE
    return found


def _ends(asks: Conditions, grant: Grant, members: Members | None) -> Iterator[Fit]:
    for network in asks.sources:
        yield _end(network, "sources", grant)
    for network in asks.destinations:
        yield _end(network, "destinations", grant)
    for name in asks.sets:
        yield _in_set(name, grant, members)


def _end(asked: Asked[Network], kind: str, grant: Grant) -> Fit:
    if (kind == "sources") is grant.answer:
        return _negated(_among_own(asked.values, grant), asked)
    return _negated(_within(asked.values, grant.source), asked)


def _among_own(networks: tuple[Network, ...], grant: Grant) -> Fit:
    if not grant.own:
        return Fit.MAYBE
    inside = {address for address in grant.own if any(address in network for network in networks)}
    if not inside:
        return Fit.NO
    return Fit.YES if inside >= (grant.near or grant.own) else Fit.MAYBE


def _in_set(asked: Asked[str], grant: Grant, members: Members | None) -> Fit:
    """A stranger is in no set: one may be a blocklist or a country."""
    if grant.answer:
        return Fit.MAYBE
    if grant.source is None:
        return Fit.MAYBE if asked.negated else Fit.NO
    found = None if members is None else members(asked.values[0], grant.source)
    return Fit.MAYBE if found is None else _negated(Fit.YES if found else Fit.NO, asked)


def _negated(found: Fit, asked: Asked[Any]) -> Fit:
    return Fit(Fit.YES - found) if asked.negated else found


def _within(networks: tuple[Network, ...], source: Network | None) -> Fit:
    if source is None:
        return Fit.YES if any(item.prefixlen == 0 for item in networks) else Fit.NO
    same = [item for item in networks if item.version == source.version]
    if any(source.prefixlen >= item.prefixlen and source[0] in item for item in same):
        return Fit.YES
    return Fit.MAYBE if any(item.overlaps(source) for item in same) else Fit.NO


def _interfaces(asks: Conditions, grant: Grant) -> Iterator[Fit]:
    here, elsewhere = asks.in_interfaces, asks.out_interfaces
    if grant.answer:
        here, elsewhere = elsewhere, here
    for item in here:
        yield _negated(_through(item.values, grant), item)
    for item in elsewhere:
        # A hook that has no such interface compares with an empty name.
        yield _negated(Fit.NO, item)


def _through(names: tuple[str, ...], grant: Grant) -> Fit:
    """`names` may end in a wildcard; nothing that is granted comes in through loopback."""
    if set(names) <= {"lo"}:
        return Fit.YES if grant.local else Fit.NO
    if not grant.interfaces:
        return Fit.MAYBE
    found = {_is_named(way, names) for way in grant.interfaces}
    return Fit.MAYBE if len(found) > 1 else Fit.YES if found.pop() else Fit.NO


def _is_named(way: str, names: tuple[str, ...]) -> bool:
    return any(way.startswith(name[:-1]) if name[-1:] in "+*" else way == name for name in names)
