"""The whole firewall as data: chains in packet order, sets, and kernel settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sipfw.ruleset.match import ONE_ADDRESS, PrefixLengths

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sipfw.ruleset.match import L4Proto
    from sipfw.ruleset.rule import Origin, Rule


class Hook(StrEnum):
    """Where netfilter calls a base chain."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"


class Priority(StrEnum):
    """When, within a hook, in the order in which the kernel calls them.

    `raw` is before connection tracking, `mangle` after it and before a change of the destination
    (DNAT), `filter` after both.
    """

    RAW = "raw"
    MANGLE = "mangle"
    FILTER = "filter"


class Layer(StrEnum):
    """A stage of defence, in packet order: what `verify` groups by."""

    ENTRY = "entry"
    TRUSTED = "trusted"
    LEARNED = "learned"
    BANNED = "banned"
    SCANNER = "scanner-block"
    RATE = "rate-limit"
    REPLIES = "replies"
    MEDIA = "media"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Base:
    """The hook that calls a chain; a chain without one is only jumped to."""

    hook: Hook
    priority: Priority


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. The end of a chain returns to its caller."""

    name: str
    layer: Layer
    summary: str
    rules: tuple[Rule, ...]
    priority: Priority
    base: Base | None = None


class SetKind(StrEnum):
    """What an element is.

    A `host` is a source, in IPv6 a prefix where the set has one; an `endpoint` is one address,
    transport and port; a `target` is the address of a source with the transport and the port that
    it sends to.
    """

    NETWORK = "network"
    PEER_ENDPOINT = "peer-endpoint"
    HOST = "host"
    ENDPOINT = "endpoint"
    TARGET = "target"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A network whose packets must also come from this port over this transport."""

    network: IPv4Network | IPv6Network
    proto: L4Proto
    port: int


@dataclass(frozen=True, slots=True)
class AddressSet:
    """A named set of one meaning for both families; backends split it.

    Static sets (`NETWORK`, `PEER_ENDPOINT`) hold what the policy says. All others are dynamic: the
    packet path fills them, `timeout` is in seconds, `size` in entries, `counted` gives each entry a
    counter of packets and bytes. `prefix` is how much of an address makes one
    source. `resolved` says that host names are among a static set's sources, so its members change
    without a new policy.
    """

    name: str
    kind: SetKind
    summary: str
    origin: Origin
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    timeout: int | None = None
    size: int = 65536
    counted: bool = False
    resolved: bool = False
    prefix: PrefixLengths = ONE_ADDRESS

    @property
    def dynamic(self) -> bool:
        """Tell whether the packet path fills this set."""
        return self.kind not in {SetKind.NETWORK, SetKind.PEER_ENDPOINT}


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting by its `/proc/sys` name with dots."""

    name: str
    value: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What one policy means. Chains and sets stand in packet order."""

    chains: tuple[Chain, ...]
    sets: tuple[AddressSet, ...]
    sysctls: tuple[Sysctl, ...]

    def chain(self, name: str) -> Chain:
        """Return the chain of that name; KeyError if the ruleset has none."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        raise KeyError(name)

    def set(self, name: str) -> AddressSet:
        """Return the set of that name; KeyError if the ruleset has none."""
        for item in self.sets:
            if item.name == name:
                return item
        raise KeyError(name)
