"""One source as the kernel knows it now: its sets, its limits, and worlds that differ in one thing.

A world is what a walk needs. The real one is read; the others answer "what if".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sipfw.compiler import names
from sipfw.kernel.state.limits import LimitTable, SourceBucket, Standing
from sipfw.kernel.state.sources import Held
from sipfw.ruleset.match import (
    ConnectionsAbove,
    CountAbove,
    Direction,
    L4Proto,
    RateAbove,
    SeenAtLeast,
    VolumeAbove,
)
from sipfw.ruleset.model import AddressSet, Endpoint, Ruleset, SetKind
from sipfw.ruleset.rule import Family
from sipfw.ruleset.source import Door, key_address, source_of
from sipfw.simulate.state import Elements, Key, Limit, LiveState, Volume

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.kernel.state.limits import LimitState
    from sipfw.kernel.state.sources import SourceSets
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.simulate.evaluate import Misses

Counted: TypeAlias = CountAbove | VolumeAbove
SourceMatch: TypeAlias = RateAbove | SeenAtLeast | ConnectionsAbove | Counted

_KNOWN = {
    Standing.UNKNOWN: Limit.UNKNOWN,
    Standing.WITHIN: Limit.WITHIN,
    Standing.EXCEEDED: Limit.EXCEEDED,
}


@dataclass(frozen=True, slots=True)
class LimitReading:
    """Where the source stands against the limit of one rule.

    `buckets` are its own; `full` says that the kernel takes no more of them. `connections` is how
    many are open, where the limit is about them. `entry` is that of a limit on what a set counts,
    and `volume` its bytes, against which each packet is held.
    """

    rule_id: str
    limit: SourceMatch
    standing: Limit
    buckets: tuple[SourceBucket, ...] = ()
    full: bool = False
    connections: int | None = None
    entry: Held | None = None
    volume: Volume | None = None

    @property
    def known(self) -> Limit | Volume:
        """Return what a walk needs to know."""
        return self.standing if self.volume is None else self.volume


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

    @property
    def first_counts(self) -> int:
        """Return what it will be."""
        return 1

    def doors(self, item: AddressSet, source: IpAddress) -> Mapping[Door, Held] | None:
        """Return none."""
        del item, source
        return {}

    def vacant(self, item: AddressSet, family: Family) -> bool | None:
        """Tell whether a set holds nothing at all."""
        del family
        return not item.networks and not item.endpoints

    def targets(self, name: str) -> Mapping[tuple[IpAddress, Door], Held]:
        """Return none."""
        del name
        return {}

    def held(self, item: AddressSet, source: IpAddress, door: Door | None = None) -> Held:
        """Look into a set: the policy's members are in, nobody has been learned."""
        ports = {(each.proto, each.port) for each in item.endpoints if source in each.network}
        inside = any(source in network for network in item.networks)
        return Held(inside or (door is not None and (door.proto, door.port) in ports))

    def read(self, limits: object) -> list[LimitTable]:
        """Return no table."""
        del limits
        return []

    def ask(
        self, limit: RateAbove | SeenAtLeast, source: IpAddress, port: int | None = None
    ) -> LimitTable | None:
        """Return a table without a bucket of this source."""
        del port
        return LimitTable(limit, Family.IP if source.version == 4 else Family.IP6, ())


@dataclass(frozen=True, slots=True)
class World:
    """A ruleset and a state to walk with. Changed worlds share what is not changed."""

    ruleset: Ruleset
    elements: Mapping[str, Elements]
    limits: Mapping[str, Limit | Volume]
    common: Mapping[str, Limit]
    misses: Misses = field(default_factory=dict)

    @property
    def live(self) -> LiveState:
        """Return the state for a walk."""
        return LiveState(self.elements, self.limits, self.common)

    def with_member(self, name: str, source: IpAddress, *, present: bool) -> World:
        """Put the source into a set, or take it out: of a set of endpoints with all its ports."""
        item = self.ruleset.set(name)
        if item.dynamic:
            members: Elements = {key_address(source, item.prefix): None} if present else {}
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


class _Overlay(Mapping[str, Limit | Volume]):
    """Some limits, and those below them: read only where nothing lies above."""

    def __init__(self, above: Mapping[str, Limit], below: Mapping[str, Limit | Volume]) -> None:
        self._above = above
        self._below = below

    def __getitem__(self, rule_id: str) -> Limit | Volume:
        return self._above[rule_id] if rule_id in self._above else self._below[rule_id]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._above), **dict.fromkeys(self._below)})

    def __len__(self) -> int:
        return len({*self._above, *self._below})


class SourceState:
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
            or (isinstance(match, CountAbove | VolumeAbove) and match.direction is Direction.SOURCE)
        }
        self._readings: dict[str, LimitReading] = {}
        self._doors_of: dict[str, Mapping[Door, Held] | None] = {}
        self.sets = {item.name: self._held(item) for item in ruleset.sets if item.dynamic}
        elements = {
            name: found
            for name, held in self.sets.items()
            if (found := self._elements(ruleset.set(name), held)) is not None
        }
        limits = _Limits(self, self._rules)
        self.world = World(self._narrowed(ruleset), elements, limits, kernel.common(ruleset))

    @property
    def readings(self) -> tuple[LimitReading, ...]:
        """Return the limits that were asked, in the order of the rules."""
        return tuple(self._readings[name] for name in self._rules if name in self._readings)

    def doors(self, name: str) -> Mapping[Door, Held]:
        """Return the ports of this address that a set of endpoints holds, as far as was asked."""
        return self._doors_of.get(name) or {}

    def reading(self, rule_id: str) -> LimitReading:
        """Read the limit of a rule; KeyError if it has none."""
        if rule_id not in self._readings:
            self._readings[rule_id] = self._read(rule_id, self._rules[rule_id])
        return self._readings[rule_id]

    def _held(self, item: AddressSet) -> Held:
        """Look into a dynamic set; of endpoints only some ports may be in, which is unknown."""
        if item.kind not in {SetKind.ENDPOINT, SetKind.TARGET}:
            return self._kernel.sets.held(item, self.address)
        if item.name == names.SET_RUSH:
            # Asked about the switch's own end, which nobody has named.
            family = Family.IP if self.address.version == 4 else Family.IP6
            return Held(False if self._kernel.sets.vacant(item, family) else None)
        try:
            doors = self._doors_of[item.name] = self._ports_in(item)
        except LookupError:
            return self._kernel.sets.held(item, self.address)
        if doors is None:
            return Held(None)
        if not doors:
            return Held(present=False)
        unknown = self._port is None and item.kind is SetKind.ENDPOINT
        return Held(None) if unknown else next(iter(doors.values()))

    def _ports_in(self, item: AddressSet) -> Mapping[Door, Held] | None:
        sets, port = self._kernel.sets, self._port
        if port is None or item.kind is SetKind.TARGET:
            return sets.doors(item, self.address)
        found = {proto: sets.held(item, self.address, Door(proto, port)) for proto in L4Proto}
        if any(held.present is None for held in found.values()):
            return None
        return {Door(proto, port): held for proto, held in found.items() if held.present}

    def _elements(self, item: AddressSet, held: Held) -> Elements | None:
        """Return what a walk finds in a dynamic set; None where it is not known."""
        if item.name in self._doors_of:
            doors = self._doors_of[item.name]
            if doors is None:
                return None
            found: dict[Key, int | None] = {}
            for door, each in doors.items():
                found[self.address, door] = None if each.left is None else round(each.left)
            return found
        if held.present is None:
            return None
        left = None if held.left is None else round(held.left)
        return {key_address(self.address, item.prefix): left} if held.present else {}

    def _read(self, rule_id: str, limit: SourceMatch) -> LimitReading:
        if isinstance(limit, CountAbove | VolumeAbove):
            return self._read_entry(rule_id, limit)
        if isinstance(limit, ConnectionsAbove):
            held = self._kernel.connections(source_of(self.address, limit.prefix))
            # This one comes on top. Whether the kernel's own list is as long, nobody can tell.
            fits = held is not None and held + 1 <= limit.count
            standing = Limit.WITHIN if fits else Limit.UNKNOWN
            return LimitReading(rule_id, limit, standing, connections=held)
        table = self._kernel.limits.ask(limit, self.address, self._port)
        if table is None:
            return LimitReading(rule_id, limit, Limit.UNKNOWN)
        standing = self._standing(limit, table)
        return LimitReading(rule_id, limit, standing, table.buckets, full=table.full)

    def _read_entry(self, rule_id: str, limit: Counted) -> LimitReading:
        """Say what an entry has counted. The packet that looks is counted before it is judged."""
        entry, first = self._entry(limit.set), self._kernel.sets.first_counts
        if isinstance(limit, CountAbove):
            return LimitReading(rule_id, limit, _count_standing(limit, entry), entry=entry)
        volume = None
        if entry.present is False or not first:
            volume = Volume(0, first)
        elif entry.bytes is not None:
            volume = Volume(entry.bytes)
        if volume is None:
            return LimitReading(rule_id, limit, Limit.UNKNOWN, entry=entry)
        standing = Limit.EXCEEDED if volume.counted > limit.size else Limit.WITHIN
        return LimitReading(rule_id, limit, standing, entry=entry, volume=volume)

    def _entry(self, name: str) -> Held:
        """Return the entry that a packet of this source looks at: by TCP, where it has a port."""
        if self._port is None or name not in self._doors_of:
            return self.sets[name]
        doors = self._doors_of[name]
        absent = Held(present=False)
        return Held(None) if doors is None else doors.get(Door(L4Proto.TCP, self._port), absent)

    def _standing(self, limit: RateAbove | SeenAtLeast, table: LimitTable) -> Limit:
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
        if item.kind is SetKind.PEER_ENDPOINT:
            return replace(item, endpoints=tuple(self._doors(item)))
        inside = self._kernel.sets.held(item, self.address).present
        return replace(item, networks=(ip_network(self.address),) if inside else ())

    def _doors(self, item: AddressSet) -> Iterator[Endpoint]:
        for proto, port in sorted({(each.proto, each.port) for each in item.endpoints}):
            if self._kernel.sets.held(item, self.address, Door(proto, port)).present:
                yield Endpoint(ip_network(self.address), proto, port)


def _count_standing(limit: CountAbove, entry: Held) -> Limit:
    """Compare as the kernel does: the packet that makes an entry is one, and so is each look."""
    if entry.present is False:
        return Limit.WITHIN if limit.count else Limit.EXCEEDED
    if entry.packets is None:
        return Limit.UNKNOWN
    return Limit.EXCEEDED if entry.packets > limit.count else Limit.WITHIN


class _Limits(Mapping[str, Limit | Volume]):
    """The standings of a source by rule id, read on demand."""

    def __init__(self, source: SourceState, rules: Mapping[str, SourceMatch]) -> None:
        self._source = source
        self._rules = rules

    def __getitem__(self, rule_id: str) -> Limit | Volume:
        return self._source.reading(rule_id).known

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


def network_of(reading: LimitReading, source: SourceState) -> IPv4Network | IPv6Network:
    """Return what counts as one source to a limit."""
    limit = reading.limit
    if isinstance(limit, CountAbove | VolumeAbove):
        return source_of(source.address, source.world.ruleset.set(limit.set).prefix)
    return source_of(source.address, limit.prefix)
