"""One source as the kernel knows it now: its sets, its limits, and worlds that differ in one thing.

A world is what a walk needs. The real one is read; the others answer "what if".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.backends.limit_state import Bucket, Standing, Table, prefix
from sipfw.backends.source_sets import Door, Held
from sipfw.ruleset.match import ConnectionsAbove, RateAbove, SeenAtLeast
from sipfw.ruleset.model import AddressSet, Endpoint, Ruleset
from sipfw.ruleset.rule import Family
from sipfw.walk.state import Elements, Limit, LiveState

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.backends.limit_state import LimitState
    from sipfw.backends.source_sets import SourceSets
    from sipfw.walk.evaluate import Misses
    from sipfw.walk.packet import IpAddress

SourceMatch: TypeAlias = RateAbove | SeenAtLeast | ConnectionsAbove

_KNOWN = {
    Standing.UNKNOWN: Limit.UNKNOWN,
    Standing.WITHIN: Limit.WITHIN,
    Standing.EXCEEDED: Limit.EXCEEDED,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the source stands against the limit of one rule.

    `buckets` are its own; `full` says that the kernel takes no more of them. `connections` is how
    many are open, where the limit is about them.
    """

    rule_id: str
    limit: SourceMatch
    standing: Limit
    buckets: tuple[Bucket, ...] = ()
    full: bool = False
    connections: int | None = None


class Kernel(Protocol):
    """What a source's state is read from."""

    @property
    def sets(self) -> SourceSets:
        """Give access to the sets."""
        ...

    @property
    def limits(self) -> LimitState:
        """Give access to the limits."""
        ...

    def connections(self, network: IPv4Network | IPv6Network) -> int | None:
        """Return how many SIP connections a network holds; None if nobody tells."""
        ...

    def common(self, ruleset: Ruleset) -> dict[str, Limit]:
        """Return what is known of the limits of all sources together, by rule id."""
        ...


class Untouched:
    """The kernel of a host on which nothing has happened yet."""

    @property
    def sets(self) -> SourceSets:
        """Give access to sets that are empty."""
        return self

    @property
    def limits(self) -> LimitState:
        """Give access to limits without buckets."""
        return self

    def connections(self, network: IPv4Network | IPv6Network) -> int | None:
        """Return none."""
        del network
        return 0

    def common(self, ruleset: Ruleset) -> dict[str, Limit]:
        """Return that nobody uses them up."""
        return {rule.id: Limit.WITHIN for chain in ruleset.chains for rule in chain.rules}

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look into a set: the policy's members are in, nobody has been learned."""
        ports = {(each.proto, each.port) for each in item.endpoints if source in each.network}
        inside = any(source in network for network in item.networks)
        return Held(inside or (door is not None and (door.proto, door.port) in ports))

    def read(self, limits: object) -> list[Table]:
        """Return no table."""
        del limits
        return []

    def ask(
        self, limit: RateAbove | SeenAtLeast, source: IpAddress, port: int | None = None
    ) -> Table | None:
        """Return a table without a bucket of this source."""
        del port
        return Table(limit, Family.IP if source.version == 4 else Family.IP6, ())


@dataclass(frozen=True, slots=True)
class World:
    """A ruleset and a state to walk with. Changed worlds share what is not changed."""

    ruleset: Ruleset
    elements: Mapping[str, Elements]
    limits: Mapping[str, Limit]
    common: Mapping[str, Limit]
    misses: Misses = field(default_factory=dict)

    @property
    def live(self) -> LiveState:
        """Return the state for a walk."""
        return LiveState(self.elements, self.limits, self.common)

    def with_member(self, name: str, source: IpAddress, *, present: bool) -> World:
        """Put the source into a set, or take it out."""
        if self.ruleset.set(name).dynamic:
            members: Elements = {source: None} if present else {}
            return replace(self, elements={**self.elements, name: members})
        networks = (ip_network(source),) if present else ()
        sets = tuple(
            replace(item, networks=networks, endpoints=()) if item.name == name else item
            for item in self.ruleset.sets
        )
        return replace(self, ruleset=replace(self.ruleset, sets=sets))

    def with_limits(self, limits: Mapping[str, Limit]) -> World:
        """Say where the source stands against the limits of these rules."""
        return replace(self, limits=_Overlay(limits, self.limits))


class _Overlay(Mapping[str, Limit]):
    """Some limits, and those below them: read only where nothing lies above."""

    def __init__(self, above: Mapping[str, Limit], below: Mapping[str, Limit]) -> None:
        self._above = above
        self._below = below

    def __getitem__(self, rule_id: str) -> Limit:
        return self._above[rule_id] if rule_id in self._above else self._below[rule_id]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._above), **dict.fromkeys(self._below)})

    def __len__(self) -> int:
        return len({*self._above, *self._below})


class Source:
    """One source and all that is known of it; limits are read when a rule asks, and once."""

    def __init__(
        self, ruleset: Ruleset, address: IpAddress, port: int | None, kernel: Kernel
    ) -> None:
        self.address = address
        self._port = port
        self._kernel = kernel
        self._rules: dict[str, SourceMatch] = {
            rule.id: match
            for chain in ruleset.chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, RateAbove | SeenAtLeast | ConnectionsAbove)
        }
        self._readings: dict[str, Reading] = {}
        self.sets = {
            item.name: kernel.sets.held(item, address) for item in ruleset.sets if item.dynamic
        }
        elements: dict[str, Elements] = {
            name: {address: None if held.left is None else round(held.left)} if held.present else {}
            for name, held in self.sets.items()
            if held.present is not None
        }
        limits = _Limits(self, self._rules)
        self.world = World(self._narrowed(ruleset), elements, limits, kernel.common(ruleset))

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Return the limits that were asked, in the order of the rules."""
        return tuple(self._readings[name] for name in self._rules if name in self._readings)

    def reading(self, rule_id: str) -> Reading:
        """Read the limit of a rule; KeyError if it has none."""
        if rule_id not in self._readings:
            self._readings[rule_id] = self._read(rule_id, self._rules[rule_id])
        return self._readings[rule_id]

    def _read(self, rule_id: str, limit: SourceMatch) -> Reading:
        if isinstance(limit, ConnectionsAbove):
            bits = limit.prefix.ip if self.address.version == 4 else limit.prefix.ip6
            held = self._kernel.connections(ip_network((self.address, bits), strict=False))
            # This one comes on top. Whether the kernel's own list is as long, nobody can tell.
            fits = held is not None and held + 1 <= limit.count
            standing = Limit.WITHIN if fits else Limit.UNKNOWN
            return Reading(rule_id, limit, standing, connections=held)
        table = self._kernel.limits.ask(limit, self.address, self._port)
        if table is None:
            return Reading(rule_id, limit, Limit.UNKNOWN)
        standing = self._standing(limit, table)
        return Reading(rule_id, limit, standing, table.buckets, full=table.full)

    def _standing(self, limit: RateAbove | SeenAtLeast, table: Table) -> Limit:
        fresh = Limit.EXCEEDED if table.full else Limit.WITHIN
        found = {_KNOWN[bucket.standing] for bucket in table.buckets}
        several = isinstance(limit, RateAbove) and limit.with_port and self._port is None
        if several and table.cut:
            return Limit.UNKNOWN
        if several or not found:
            # From most ports it has sent nothing yet.
            found.add(fresh)
        return found.pop() if len(found) == 1 else Limit.UNKNOWN

    def _narrowed(self, ruleset: Ruleset) -> Ruleset:
        """Leave in the static sets what is about this source: a walk asks them again and again.

        Those that change without a new policy, with DNS or a block list, are as the kernel has
        them: the ruleset on file may be older.
        """
        return replace(ruleset, sets=tuple(self._about(item) for item in ruleset.sets))

    def _about(self, item: AddressSet) -> AddressSet:
        if item.dynamic:
            return item
        endpoints = tuple(each for each in item.endpoints if self.address in each.network)
        if not item.resolved:
            networks = tuple(each for each in item.networks if self.address in each)
            return replace(item, networks=networks, endpoints=endpoints)
        if item.name.endswith("-ports"):
            return replace(item, endpoints=tuple(self._doors(item)))
        inside = self._kernel.sets.held(item, self.address).present
        return replace(item, networks=(ip_network(self.address),) if inside else ())

    def _doors(self, item: AddressSet) -> Iterator[Endpoint]:
        for proto, port in sorted({(each.proto, each.port) for each in item.endpoints}):
            if self._kernel.sets.held(item, self.address, Door(proto, port)).present:
                yield Endpoint(ip_network(self.address), proto, port)


class _Limits(Mapping[str, Limit]):
    """The standings of a source by rule id, read on demand."""

    def __init__(self, source: Source, rules: Mapping[str, SourceMatch]) -> None:
        self._source = source
        self._rules = rules

    def __getitem__(self, rule_id: str) -> Limit:
        return self._source.reading(rule_id).standing

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


def network_of(reading: Reading, source: IpAddress) -> IPv4Network | IPv6Network:
    """Return what counts as one source to a limit."""
    limit = reading.limit
    if isinstance(limit, ConnectionsAbove):
        bits = limit.prefix.ip if source.version == 4 else limit.prefix.ip6
    else:
        bits = prefix(limit, Family.IP if source.version == 4 else Family.IP6)
    return ip_network((source, bits), strict=False)
